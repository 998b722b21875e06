//! HTTP byte by byte, for requests that no client library sends.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::client::Answer;

const WAIT: Duration = Duration::from_secs(60);

/// Sends `request` unchanged and reads until the node closes the connection.
pub async fn exchange(to: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).await.expect("a connection");
    stream.write_all(request).await.expect("the node takes it");
    parse(&read_all(&mut stream).await)
}

/// Sends a request without a body, given as method and raw path, and reads until the node closes.
pub async fn ask(to: SocketAddr, method: &str, path: &str) -> Answer {
    exchange(to, head(method, path, &[]).as_bytes()).await
}

/// The head of a request that asks to close the connection.
pub fn head(method: &str, path: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
}

/// A request of HTTP/1.1 as a client sends it that keeps its connection.
pub fn kept(method: &str, path: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// Sends `request` on an open connection and reads one answer, which must have a length.
pub async fn ask_on(stream: &mut TcpStream, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).await.expect("the node takes it");
    read_one(stream).await
}

/// Reads one answer, which must have a length.
pub async fn read_one(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let answer = parse(&bytes);
                let length = answer.header("content-length").expect("a length");
                if bytes.len() >= end + 4 + length.parse::<usize>().expect("a number") {
                    return answer;
                }
            }
            let read = stream.read_buf(&mut bytes).await.expect("the connection lives");
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
            assert!(read > 0, "the connection ended: {shown:?}");
        }
    };
    timeout(WAIT, reading).await.expect("an answer")
}

/// Reads until the connection ends; the bytes, and whether it ended by a reset.
pub async fn read_to_end(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let reading = async {
        loop {
            match stream.read_buf(&mut bytes).await {
                Ok(0) => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    };
    let reset = timeout(WAIT, reading).await.expect("the node ends the connection");
    (bytes, reset)
}

/// Reads until the node closes or resets the connection.
pub async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async { while let Ok(1..) = stream.read_buf(&mut bytes).await {} };
    timeout(WAIT, reading).await.expect("the node closes the connection");
    bytes
}

/// Parses one answer.
#[track_caller]
pub fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let shown = || String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned();
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", shown()));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1."));
    let status = status.and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").expect("a header");
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        headers.append(name, HeaderValue::from_str(value).expect("a value"));
    }
    let body = Bytes::copy_from_slice(&bytes[end + 4..]);
    Answer { status: status.unwrap_or_else(|| panic!("no status: {:?}", shown())), headers, body }
}
