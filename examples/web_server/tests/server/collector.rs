//! Collector of spans over HTTP, as far as the tests need one.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;

/// Collector on a port of its own, until the test process ends.
pub(crate) struct Collector {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

/// Received span.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_id: String,
    pub(crate) nanoseconds: u64,
    pub(crate) has_failed: bool,
    /// Process id.
    pub(crate) process: i64,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::<Mutex<Vec<_>>>::default();
        thread::spawn({
            let requests = Arc::clone(&requests);
            move || {
                for connection in listener.incoming() {
                    let requests = Arc::clone(&requests);
                    thread::spawn(move || serve(&connection.unwrap(), &requests));
                }
            }
        });
        Self { address, requests }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans received so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let requests = self.requests.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let spans = resources.flat_map(|resource| {
            let process =
                resource.resource.iter().flat_map(|resource| &resource.attributes).find_map(|attribute| {
                    match attribute.value.as_ref()?.value.as_ref()? {
                        Value::IntValue(pid) if attribute.key == "process.pid" => Some(*pid),
                        _ => None,
                    }
                });
            let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
            spans.map(move |span| Span {
                name: span.name.clone(),
                trace_id: hexadecimal(&span.trace_id),
                span_id: hexadecimal(&span.span_id),
                parent_id: hexadecimal(&span.parent_span_id),
                nanoseconds: span.end_time_unix_nano - span.start_time_unix_nano,
                has_failed: span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
                process: process.unwrap(),
            })
        });
        spans.collect()
    }
}

/// Answers the requests of one connection.
fn serve(connection: &TcpStream, requests: &Mutex<Vec<ExportTraceServiceRequest>>) {
    let mut reader = BufReader::new(connection);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        assert!(line.starts_with("POST /v1/traces "), "{line}");
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        requests.lock().unwrap().push(ExportTraceServiceRequest::decode(&*body).unwrap());
        let mut connection = connection;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
