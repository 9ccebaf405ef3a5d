//! `[telemetry]`: the endpoints and the logs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::Section;
use crate::secret::Secret;
use crate::telemetry::{LogFilter, LogFormat};

/// The port of metrics and probes, unless it is set.
const PORT: u16 = 9464;

/// The port of the admin endpoint, unless it is set.
const ADMIN_PORT: u16 = 9465;

/// The endpoints and the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Where `/metrics`, `/livez` and `/readyz` are served; default `0.0.0.0:9464`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where `/status` and `/log-level` are served; default `127.0.0.1:9465`; none when it is `off`.
    pub admin_listen: Option<SocketAddr>,
    /// What whoever changes something there has to show, and whoever reads from another machine.
    pub admin_token: Option<Secret>,
    /// Text or JSON; default text.
    pub log_format: LogFormat,
    /// Which lines are logged; default `info`.
    pub log_level: LogFilter,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT),
            admin_listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), ADMIN_PORT)),
            admin_token: None,
            log_format: LogFormat::default(),
            log_level: LogFilter::default(),
        }
    }
}

impl TelemetryConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let listen = section.parsed("listen", "an address and port such as \"0.0.0.0:9464\"", |text| text.parse().ok());
        let expected = "an address and port such as \"127.0.0.1:9465\", or \"off\"";
        let admin_listen = section.parsed("admin_listen", expected, |text| match text {
            "off" => Some(None),
            text => text.parse().ok().map(Some),
        });
        let admin_listen = admin_listen.unwrap_or(defaults.admin_listen);
        let admin_token = Secret::take(&mut section, "admin_token");
        if admin_token.is_none()
            && let Some(open) = admin_listen.filter(|listen| !listen.ip().is_loopback())
        {
            let expected = "an address of this machine alone, such as \"127.0.0.1:9465\", while admin_token is not set";
            section.wrong("admin_listen", open.to_string(), expected);
        }
        let log_format = section.parsed("log_format", "\"text\" or \"json\"", |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let expected = "off, error, warn, info, debug, trace, or a filter such as \"info,angzarr_relay::stream=debug\"";
        let log_level = section.parsed("log_level", expected, |text| LogFilter::parse(text).ok());
        section.finish();
        Self {
            listen: listen.unwrap_or(defaults.listen),
            admin_listen,
            admin_token,
            log_format: log_format.unwrap_or(defaults.log_format),
            log_level: log_level.unwrap_or(defaults.log_level),
        }
    }
}
