//! A tiny HTTP/1.1 server for the tests of client commands: real sockets, canned answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::client::{Client, Connection};
use super::error::CliError;
use super::output::{Format, Output};

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub line: String,
    pub headers: Vec<String>,
    pub body: String,
}

impl Request {
    pub fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|h| h.eq_ignore_ascii_case(header))
    }
}

/// Answers one request per connection with the bytes that `answer` returns, then hangs up.
pub struct Canned {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Canned {
    pub fn new(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = read(&stream) else { return };
                    kept.lock().unwrap().push(request.clone());
                    let _ = stream.write_all(&answer(&request));
                });
            }
        });
        Self { url, requests }
    }

    pub fn client(&self) -> Client {
        open(&self.url)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

pub fn open(url: &str) -> Client {
    Client::open(&Connection { url: url.to_owned() }).unwrap()
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut from = BufReader::new(stream);
    let mut line = String::new();
    from.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut headers = Vec::new();
    let mut length = 0;
    loop {
        let mut header = String::new();
        from.read_line(&mut header).ok()?;
        let header = header.trim_end().to_owned();
        if header.is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        headers.push(header);
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    let body = String::from_utf8_lossy(&body).into_owned();
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some(Request { line, headers, body })
}

/// The header by which a node says that it is one.
pub const NODE: &str = "Kvs-Node: 01a20695-77a2-7363-9f57-468ec2e1b55d\r\n";

/// Builds an answer of a node. `headers` holds further header lines, each ending in `\r\n`.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    stranger(status, &format!("{NODE}{headers}"), body)
}

/// Builds an answer of a server that is no node.
pub fn stranger(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// Runs a client command; returns its output and its result.
pub fn run<F>(format: Format, work: F) -> (String, Result<(), CliError>)
where
    F: AsyncFnOnce(&mut Output<'_>) -> Result<(), CliError>,
{
    let mut bytes = Vec::new();
    let mut out = Output::new(&mut bytes, format);
    let ended = super::block_on(work(&mut out));
    (String::from_utf8_lossy(&bytes).into_owned(), ended)
}
