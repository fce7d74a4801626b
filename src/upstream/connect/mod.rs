//! Opens connections, with or without proxy and TLS, within one time limit.

mod no_proxy;

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri, uri::Scheme};
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            Connection, HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

use self::no_proxy::ProxyExceptions;
use super::{connect_fault::ConnectFault, tls::TlsSettings, uri::host_port};
use crate::config::settings::ProxySetting;
use crate::upstream::{
    dns::DnsResolver,
    tracked_io::{ProxyHop, RawIo, TrackedIo},
};

/// The connector of one pool.
#[derive(Clone)]
pub(super) struct Connector(Arc<ConnectorInner>);

struct ConnectorInner {
    tcp: HttpConnector<DnsResolver>,
    /// For connections to this machine.
    loopback_tcp: HttpConnector<DnsResolver>,
    resolver: DnsResolver,
    route: ConnectRoute,
    tls: Arc<TlsSettings>,
    timeout: Duration,
}

/// Data unacknowledged for this long means that the peer is gone (a changed network, a dropped NAT
/// entry).
const USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(15);

impl Connector {
    pub(super) fn new(
        resolver: DnsResolver,
        proxy: &ProxySetting,
        tls: Arc<TlsSettings>,
        timeout: Duration,
    ) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE / 3));
        tcp.set_keepalive_retries(Some(3));
        // The network to this machine cannot go away, but a busy model server may leave a request
        // unread for long.
        let loopback_tcp = tcp.clone();
        #[cfg(any(target_os = "android", target_os = "linux"))]
        tcp.set_tcp_user_timeout(Some(USER_TIMEOUT));
        #[cfg(not(any(target_os = "android", target_os = "linux")))]
        let _no_such_option = USER_TIMEOUT;
        Self(Arc::new(ConnectorInner {
            tcp,
            loopback_tcp,
            resolver,
            route: ConnectRoute::new(proxy),
            tls,
            timeout,
        }))
    }

    /// Returns whether the connection can only carry HTTP/1 to the host itself: plain text, and no
    /// proxy in between.
    pub(super) fn is_plain_http(&self, to: &Uri) -> bool {
        to.scheme() == Some(&Scheme::HTTP)
            && self.0.route.proxy_for(to).is_ok_and(|proxy| proxy.is_none())
    }

    /// Returns the credentials that a proxy requires with a plain-text request; those of a tunnel
    /// are sent when it is opened.
    pub(super) fn proxy_credentials(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme() != Some(&Scheme::HTTP) {
            return None;
        }
        self.0.route.proxy_for(uri).ok().flatten()?.basic_auth().cloned()
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TrackedIo>;
    type Error = ConnectFault;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectFault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let this = Arc::clone(&self.0);
        Box::pin(async move {
            match tokio::time::timeout(this.timeout, this.open(&to)).await {
                Ok(opened) => opened.map(|stream| TokioIo::new(TrackedIo::new(stream))),
                Err(_) => Err(ConnectFault::timed_out(&to, this.timeout)),
            }
        })
    }
}

impl ConnectorInner {
    async fn open(&self, to: &Uri) -> Result<MaybeHttpsStream<ProxyHop>, ConnectFault> {
        let hop = self.reach_host(to).await?;
        if to.scheme() == Some(&Scheme::HTTPS) {
            self.start_tls(hop, to).await
        } else {
            Ok(MaybeHttpsStream::Http(hop))
        }
    }

    /// Connects to the host of `to`, through a proxy if one is set.
    async fn reach_host(&self, to: &Uri) -> Result<ProxyHop, ConnectFault> {
        let Some(proxy) = self.route.proxy_for(to).map_err(|e| ConnectFault::failed(&e))? else {
            return Ok(ProxyHop { raw: RawIo::Http(self.dial(to).await?), proxied: false });
        };
        let proxy_uri = with_explicit_port(proxy.uri());
        let tcp = self.dial(&proxy_uri).await.map_err(ConnectFault::at_proxy)?;
        let refused = |why: String| {
            ConnectFault::failed(&format!(
                "proxy {} gives no way to {}: {why}",
                host_port(&proxy_uri),
                host_port(to)
            ))
        };
        match proxy_uri.scheme_str() {
            Some(scheme @ ("http" | "https")) => {
                let raw = if scheme == "https" {
                    self.start_tls(tcp, &proxy_uri).await?
                } else {
                    RawIo::Http(tcp)
                };
                if to.scheme() != Some(&Scheme::HTTPS) {
                    return Ok(ProxyHop { raw, proxied: true });
                }
                let mut tunnel = Tunnel::new(proxy_uri.clone(), ReadyConnection(Some(raw)));
                if let Some(credentials) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                let raw = tunnel.call(to.clone()).await.map_err(|e| refused(e.to_string()))?;
                Ok(ProxyHop { raw, proxied: false })
            }
            Some(scheme @ ("socks5" | "socks5h")) => {
                let mut socks = SocksV5::new(proxy_uri.clone(), ReadyConnection(Some(tcp)));
                if let Some((user, password)) = proxy.raw_auth() {
                    socks = socks.with_auth(user.to_owned(), password.to_owned());
                }
                // `socks5`: aiproxy's own resolver looks the name up here, because the connector's
                // would block.
                let to = if scheme == "socks5" {
                    self.resolve_to_ip(to).await?
                } else {
                    with_explicit_port(to)
                };
                let tcp = socks.call(to).await.map_err(|e| refused(e.to_string()))?;
                Ok(ProxyHop { raw: RawIo::Http(tcp), proxied: false })
            }
            _ => Err(ConnectFault::failed(&format!(
                "proxy {}: http, https, socks5 and socks5h are understood",
                host_port(&proxy_uri)
            ))),
        }
    }

    async fn dial(&self, to: &Uri) -> Result<TokioIo<TcpStream>, ConnectFault> {
        let mut tcp = if to.host().is_some_and(is_loopback) {
            self.loopback_tcp.clone()
        } else {
            self.tcp.clone()
        };
        tcp.call(to.clone()).await.map_err(|e| ConnectFault::from_error(to, &e))
    }

    async fn start_tls<T>(&self, io: T, to: &Uri) -> Result<MaybeHttpsStream<T>, ConnectFault>
    where
        T: hyper::rt::Read + hyper::rt::Write + Connection + Send + Unpin + 'static,
    {
        let config = self.tls.config().await.map_err(ConnectFault::tls_failed)?;
        let names = Arc::new(DefaultServerNameResolver::default());
        HttpsConnector::new(ReadyConnection(Some(io)), config, true, names)
            .call(to.clone())
            .await
            .map_err(|e| ConnectFault::from_error(to, &*e))
    }

    async fn resolve_to_ip(&self, to: &Uri) -> Result<Uri, ConnectFault> {
        let to = with_explicit_port(to);
        let host = to.host().unwrap_or_default();
        if parse_ip(host).is_some() {
            return Ok(to);
        }
        let found =
            self.resolver.lookup(host).await.map_err(|e| ConnectFault::from_error(&to, &e))?;
        let address = found.first().map(|first| (first.ip(), to.port_u16().unwrap_or(443)));
        address
            .and_then(|address| {
                format!("http://{}/", std::net::SocketAddr::from(address)).parse().ok()
            })
            .ok_or_else(|| ConnectFault::unresolved(&to))
    }
}

/// How hosts are reached.
enum ConnectRoute {
    Direct,
    /// The proxy from the environment variables (or the system); never for this machine.
    Environment(Matcher, ProxyExceptions),
    /// Always this proxy.
    Fixed(Matcher),
    /// The configured URL is not a proxy URL.
    Invalid,
}

impl ConnectRoute {
    fn new(proxy: &ProxySetting) -> Self {
        match proxy {
            ProxySetting::Direct => Self::Direct,
            ProxySetting::Environment => {
                Self::Environment(Matcher::from_system(), ProxyExceptions::from_environment())
            }
            ProxySetting::Url(url) => {
                let matcher = Matcher::builder().all(url.as_str()).build();
                let usable = matcher.intercept(&Uri::from_static("https://host")).is_some();
                if usable { Self::Fixed(matcher) } else { Self::Invalid }
            }
        }
    }

    fn proxy_for(&self, to: &Uri) -> Result<Option<Intercept>, String> {
        match self {
            Self::Direct => Ok(None),
            Self::Environment(_, exceptions)
                if to.host().is_some_and(is_loopback) || exceptions.contains(to) =>
            {
                Ok(None)
            }
            Self::Environment(matcher, _) | Self::Fixed(matcher) => Ok(matcher.intercept(to)),
            Self::Invalid => {
                Err("the configured `proxy` is not a URL of http, https, socks5 or socks5h"
                    .to_owned())
            }
        }
    }
}

fn parse_ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback(host: &str) -> bool {
    match parse_ip(host) {
        Some(ip) => ip.to_canonical().is_loopback() || ip.is_unspecified(),
        None => {
            host.eq_ignore_ascii_case("localhost")
                || host.to_ascii_lowercase().ends_with(".localhost")
        }
    }
}

/// Adds the default port. Proxies have default ports of their own, and the SOCKS connector takes
/// 443 for a missing port.
fn with_explicit_port(uri: &Uri) -> Uri {
    if uri.port().is_some() {
        return uri.clone();
    }
    let text = format!("{}://{}/", uri.scheme_str().unwrap_or("http"), host_port(uri));
    text.parse().unwrap_or_else(|_| uri.clone())
}

/// An open connection, for connectors that expect a service that provides one.
struct ReadyConnection<T>(Option<T>);

impl<T: Send + 'static> Service<Uri> for ReadyConnection<T> {
    type Response = T;
    type Error = io::Error;
    type Future = std::future::Ready<Result<T, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        std::future::ready(
            self.0.take().ok_or_else(|| io::Error::other("the connection was taken already")),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn via(proxy: &ProxySetting, to: &str) -> Result<Option<String>, String> {
        let found = ConnectRoute::new(proxy).proxy_for(&to.parse().expect("a URI"))?;
        Ok(found.map(|proxy| with_explicit_port(proxy.uri()).to_string()))
    }

    #[test]
    fn configured_proxy_is_always_used_and_has_a_default_port() {
        for (url, expected) in [
            ("http://u:p%40ss@proxy.corp", "http://proxy.corp:80/"),
            ("https://proxy.corp:8443", "https://proxy.corp:8443/"),
            ("socks5h://u:p@10.0.0.1", "socks5h://10.0.0.1:1080/"),
        ] {
            assert_eq!(
                via(&ProxySetting::Url(url.to_owned()), "https://api.x.com"),
                Ok(Some(expected.to_owned()))
            );
        }
        assert!(via(&ProxySetting::Url("ftp://x".to_owned()), "https://api.x.com").is_err());
        assert_eq!(via(&ProxySetting::Direct, "https://api.x.com"), Ok(None));
    }

    #[test]
    fn loopback_never_uses_the_proxy_of_the_environment() {
        let route = ConnectRoute::Environment(
            Matcher::builder().all("http://proxy.corp:3128").build(),
            ProxyExceptions::default(),
        );
        for (to, proxied) in [
            ("http://127.0.0.1:11434/", false),
            ("http://[::1]:11434/", false),
            ("http://localhost/", false),
            ("http://models.localhost/", false),
            ("https://api.x.com/", true),
        ] {
            let through = route.proxy_for(&to.parse().expect("a URI")).expect("usable");
            assert_eq!(through.is_some(), proxied, "{to}");
        }
    }
}
