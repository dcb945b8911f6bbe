//! Where a request comes from: its trace and its network address.

use poem::{FromRequest, Request, RequestBody, Result};

/// The request's trace id, for jobs and the audit log.
#[derive(Debug, Clone)]
pub(crate) struct TraceId(pub String);

/// Trace and address of a request.
///
/// The address is that of the connection. Behind a proxy it is the proxy's: a header that anybody can write is no
/// ground to refuse a login on.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// Ties everything that the request causes to it.
    pub trace_id: String,
    /// Network address without the port.
    pub address: Option<String>,
}

impl<'a> FromRequest<'a> for Origin {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> Result<Self> {
        let trace_id = match request.data::<TraceId>() {
            Some(TraceId(id)) => id.clone(),
            None => entropy_jobs::process::telemetry::new_trace_id(),
        };
        let address = request.remote_addr().as_socket_addr().map(|address| address.ip().to_string());
        Ok(Origin { trace_id, address })
    }
}
