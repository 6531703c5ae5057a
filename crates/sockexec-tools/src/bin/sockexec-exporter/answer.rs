//! Answers to requests.

use std::convert::Infallible;
use std::path::Path;

use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use sockexec_tools::PATIENCE;

/// The version is that of the text format.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

const INDEX: &str = "<!DOCTYPE html>\n<title>sockexec-exporter</title>\n<h1>sockexec-exporter</h1>\n\
                     <p><a href=\"/metrics\">Metrics</a></p>\n";

/// Answers a request. Only `/metrics` asks the daemon. Everything but the method and the path is ignored.
pub(crate) async fn answer<B>(request: Request<B>, socket: &Path) -> Result<Response<String>, Infallible> {
    let is_head = request.method() == Method::HEAD;
    let is_known = matches!(request.uri().path(), "/" | "/metrics");
    let mut response = if !is_known {
        response(StatusCode::NOT_FOUND, TEXT, "not found; the metrics are at /metrics\n".to_owned())
    } else if !is_head && request.method() != Method::GET {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD are allowed\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        refusal
    } else if request.uri().path() == "/" {
        response(StatusCode::OK, HTML, INDEX.to_owned())
    } else {
        metrics(socket).await
    };
    if is_head {
        // The length that GET would have.
        let length = response.body().len();
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
        response.body_mut().clear();
    }
    Ok(response)
}

async fn metrics(socket: &Path) -> Response<String> {
    let reason = match sockexec::tokio::daemon_status(socket, PATIENCE).await {
        Ok(status) => match sockexec::client::prometheus(&status) {
            Some(text) => return response(StatusCode::OK, METRICS, text),
            None => "the daemon's status is not JSON".to_owned(),
        },
        Err(error) => error.to_string(),
    };
    response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{}: {reason}\n", socket.display()))
}

fn response(status: StatusCode, kind: HeaderValue, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
