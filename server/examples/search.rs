//! A client of a running `foveal serve`: lists the collections, then searches one of them.
//!
//! ```text
//! cargo run --release -p foveal-server --example search -- \
//!     --addr http://127.0.0.1:50151 --collection tokens --queries queries.f16bin --row 0 --k 5
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use foveal_datasets::harmless::harmless;
use foveal_datasets::{Element, RowSource, VectorFile};
use foveal_proto::v1 as pb;
use foveal_proto::v1::collection_service_client::CollectionServiceClient;
use foveal_proto::v1::search_service_client::SearchServiceClient;
use tonic::Status;
use tonic::transport::Channel;

/// Search a collection of a Foveal server for the nearest vectors to one query.
#[derive(Parser)]
struct Args {
    /// Address of the server.
    #[arg(long, default_value = "http://127.0.0.1:50151")]
    addr: String,
    /// Collection to search; the first one if there is no name.
    #[arg(long)]
    collection: Option<String>,
    /// File of queries: fvecs, bvecs, fbin, u8bin, i8bin, f16bin or npy.
    #[arg(long)]
    queries: PathBuf,
    /// Which of them to search for.
    #[arg(long, default_value_t = 0)]
    row: usize,
    /// How many neighbors to show.
    #[arg(long, default_value_t = 10)]
    k: u32,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Err(error) = run(Args::parse()).await else {
        return ExitCode::SUCCESS;
    };
    match error.downcast_ref::<Status>() {
        // The field at fault and the reason are in its details: see `tonic_types::StatusExt`.
        Some(status) => eprintln!("{:?}: {}", status.code(), harmless(status.message())),
        None => eprintln!("{}", harmless(&format!("{error:#}"))),
    }
    ExitCode::FAILURE
}

async fn run(args: Args) -> anyhow::Result<()> {
    let vector = read_query(&args)?;
    let channel = Channel::from_shared(args.addr.clone())?.connect().await;
    let channel = channel.with_context(|| format!("no server answers at {}", args.addr))?;

    let mut collections = CollectionServiceClient::new(channel.clone());
    let list = collections.list(pb::ListCollectionsRequest {}).await?.into_inner().collections;
    for collection in &list {
        let pb::Collection { name, count, dim, .. } = collection;
        println!("{name}: {count} vectors of {dim} dimensions, {:?}", collection.metric());
    }

    let Some(collection) = args.collection.or_else(|| Some(list.first()?.name.clone())) else {
        bail!("the server has no collection");
    };
    let request = pb::SearchRequest {
        collection,
        vector: Some(vector),
        // Everything unset takes the server's default; the response holds what was chosen.
        params: Some(pb::SearchParams { k: Some(args.k), ..Default::default() }),
        with_payload: true,
    };
    let response = SearchServiceClient::new(channel).search(request).await?.into_inner();
    show(&response);
    Ok(())
}

/// One row of the file, its numbers as bytes in the type in which the file holds them.
fn read_query(args: &Args) -> anyhow::Result<pb::Vector> {
    let file = VectorFile::open(&args.queries)?;
    if args.row >= file.len() {
        bail!("{}: --row {} of {} rows", args.queries.display(), args.row, file.len());
    }
    let rows = file.read(args.row..args.row + 1)?;
    let dtype = match rows.element() {
        Element::F32 => pb::DType::F32,
        Element::F16 => pb::DType::F16,
        Element::Bf16 => pb::DType::Bf16,
        Element::U8 => pb::DType::U8,
        Element::I8 => pb::DType::I8,
    };
    let raw = pb::Raw { dtype: dtype.into(), values: rows.values().bytes().to_vec().into() };
    Ok(pb::Vector { data: Some(pb::vector::Data::Raw(raw)) })
}

fn show(response: &pb::SearchResponse) {
    println!("\nrank         key     distance  payload");
    for (rank, hit) in (1..).zip(&response.hits) {
        // Whoever wrote the payload must not drive this terminal.
        let payload = harmless(hit.payload.as_deref().unwrap_or("-"));
        println!("{rank:>4}  {:>10}  {:>11.5}  {payload}", hit.key, hit.distance);
    }
    let params = response.params.unwrap_or_default();
    let usage = response.usage.unwrap_or_default();
    println!(
        "\nlist size {}: {} distances, {} reads, {} us in memory and {} us on full vectors",
        params.list_size(),
        usage.distances,
        usage.reads,
        usage.preview_micros,
        usage.fullview_micros,
    );
    if response.exhausted {
        println!("the collection has no more vectors than these");
    }
}
