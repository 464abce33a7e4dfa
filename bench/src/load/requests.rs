//! The requests: every one is put together before the first is timed.

use anyhow::bail;
use bytes::Bytes;
use foveal_datasets::{Element, Rows};
use foveal_proto::v1 as pb;

use crate::line::Call;

/// The most queries a batch may have.
pub const MAX_BATCH: u32 = 4_096;

/// What the requests have in common.
#[derive(Clone, Debug)]
pub struct RequestParams {
    /// The call.
    pub call: Call,
    /// The collection's name.
    pub collection: String,
    /// Results wanted of a query.
    pub k: u32,
    /// Candidate pool; `None` takes the server's default.
    pub list_size: Option<u32>,
    /// Queries of a call; 1 for `Search`.
    pub batch: u32,
}

/// A request; copies share the numbers of its queries.
#[derive(Clone, Debug)]
pub enum Request {
    /// One query.
    Search(pb::SearchRequest),
    /// Many.
    SearchBatch(pb::SearchBatchRequest),
}

/// All requests of a run, sent in turn from the first to the last and again.
#[derive(Debug)]
pub struct Requests {
    requests: Vec<Request>,
    queries: usize,
    batch: usize,
}

impl Requests {
    /// Requests that send every query at least once; the last batch goes on with the first queries.
    ///
    /// # Errors
    /// There are no queries; `batch` is not one that `call` can have.
    pub fn new(queries: &Rows, params: &RequestParams) -> anyhow::Result<Requests> {
        if queries.is_empty() {
            bail!("there is no query to send");
        }
        let most = if params.call == Call::Search { 1 } else { MAX_BATCH };
        if !(1..=most).contains(&params.batch) {
            bail!("a call has {} queries; wanted 1 to {most}", params.batch);
        }
        let (queried, batch) = (queries.len(), params.batch as usize);
        let calls = queried.div_ceil(batch);
        let row_bytes = queries.row_bytes();
        let once = queries.values().bytes();
        let mut values = Vec::with_capacity(calls * batch * row_bytes);
        while values.len() < calls * batch * row_bytes {
            let left = calls * batch * row_bytes - values.len();
            values.extend_from_slice(&once[..once.len().min(left)]);
        }
        let values = Bytes::from(values);
        let of = |call: usize| {
            let size = batch * row_bytes;
            let values = values.slice(call * size..(call + 1) * size);
            let raw = pb::Raw { dtype: dtype(queries.element()).into(), values };
            request(raw, queries.dim() as u32, params)
        };
        Ok(Requests { requests: (0..calls).map(of).collect(), queries: queried, batch })
    }

    /// The request of the call of that number.
    pub fn of(&self, number: u64) -> Request {
        self.requests[self.turn(number)].clone()
    }

    /// The queries of this call, in their order.
    pub fn queries_of(&self, number: u64) -> impl Iterator<Item = usize> {
        let first = self.turn(number) * self.batch;
        (first..first + self.batch).map(|query| query % self.queries)
    }

    /// Numbers of calls that send every query once.
    pub fn round(&self) -> std::ops::Range<u64> {
        0..self.requests.len() as u64
    }

    /// How many different queries there are.
    pub fn queries(&self) -> usize {
        self.queries
    }

    fn turn(&self, number: u64) -> usize {
        (number % self.requests.len() as u64) as usize
    }
}

fn request(raw: pb::Raw, dim: u32, of: &RequestParams) -> Request {
    let collection = of.collection.clone();
    let params =
        pb::SearchParams { k: Some(of.k), list_size: of.list_size, ..pb::SearchParams::default() };
    let (params, with_payload) = (Some(params), false);
    match of.call {
        Call::Search => {
            let vector = Some(pb::Vector { data: Some(pb::vector::Data::Raw(raw)) });
            Request::Search(pb::SearchRequest { collection, vector, params, with_payload })
        }
        Call::SearchBatch => {
            let queries = Some(pb::Vectors { dim, data: Some(pb::vectors::Data::Raw(raw)) });
            let request = pb::SearchBatchRequest { collection, queries, params, with_payload };
            Request::SearchBatch(request)
        }
    }
}

fn dtype(element: Element) -> pb::DType {
    match element {
        Element::F32 => pb::DType::F32,
        Element::F16 => pb::DType::F16,
        Element::Bf16 => pb::DType::Bf16,
        Element::U8 => pb::DType::U8,
        Element::I8 => pb::DType::I8,
    }
}

#[cfg(test)]
mod tests {
    use foveal_datasets::Values;

    use super::*;

    fn params(call: Call, batch: u32) -> RequestParams {
        RequestParams { call, collection: "c".into(), k: 3, list_size: Some(9), batch }
    }

    fn rows(n: u8) -> Rows {
        Rows::new(2, Values::U8((0..2 * n).collect())).unwrap()
    }

    fn values(request: Request) -> Bytes {
        match request {
            Request::Search(request) => match request.vector.unwrap().data.unwrap() {
                pb::vector::Data::Raw(raw) => raw.values,
                pb::vector::Data::F32(_) => panic!("bytes are raw"),
            },
            Request::SearchBatch(request) => match request.queries.unwrap().data.unwrap() {
                pb::vectors::Data::Raw(raw) => raw.values,
                pb::vectors::Data::F32(_) => panic!("bytes are raw"),
            },
        }
    }

    #[test]
    fn each_call_asks_the_queries_it_says() {
        let shapes = [(Call::Search, 1), (Call::SearchBatch, 1), (Call::SearchBatch, 2)];
        for (call, batch) in shapes.into_iter().chain([(Call::SearchBatch, 12)]) {
            let requests = Requests::new(&rows(5), &params(call, batch)).unwrap();
            let mut queried = [false; 5];
            for number in 0..20 {
                let queries: Vec<usize> = requests.queries_of(number).collect();
                let wanted: Vec<u8> =
                    queries.iter().flat_map(|q| [2 * *q as u8, 2 * *q as u8 + 1]).collect();
                assert_eq!(queries.len(), batch as usize);
                assert_eq!(values(requests.of(number)), wanted);
                if requests.round().contains(&number) {
                    queries.iter().for_each(|q| queried[*q] = true);
                }
            }
            assert_eq!(queried, [true; 5], "{call:?} of {batch}");
        }
    }

    #[test]
    fn copies_share_their_numbers() {
        let requests = Requests::new(&rows(5), &params(Call::Search, 1)).unwrap();
        assert_eq!(values(requests.of(3)).as_ptr(), values(requests.of(8)).as_ptr());
    }

    #[test]
    fn sizes_that_no_call_has_are_refused() {
        for (call, batch) in [
            (Call::Search, 0),
            (Call::Search, 2),
            (Call::SearchBatch, 0),
            (Call::SearchBatch, MAX_BATCH + 1),
        ] {
            let error = Requests::new(&rows(5), &params(call, batch)).unwrap_err().to_string();
            assert!(error.contains(&format!("{batch} queries; wanted 1 to")), "{error}");
        }
        assert!(Requests::new(&rows(0), &params(Call::Search, 1)).is_err());
    }
}
