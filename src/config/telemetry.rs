//! `[telemetry]`: the admin endpoint and the logs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::reader::Section;
use crate::telemetry::{LogFilter, LogFormat};

/// The port of the admin endpoint, unless it is set.
const PORT: u16 = 9464;

/// The admin endpoint and the logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Where `/metrics`, `/livez` and `/readyz` are served; default `0.0.0.0:9464`. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Text or JSON; default text.
    pub log_format: LogFormat,
    /// Which lines are logged; default `info`.
    pub log_level: LogFilter,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT),
            log_format: LogFormat::default(),
            log_level: LogFilter::default(),
        }
    }
}

impl TelemetryConfig {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let defaults = Self::default();
        let listen = section.parsed("listen", "an address and port such as \"0.0.0.0:9464\"", |text| text.parse().ok());
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
            log_format: log_format.unwrap_or(defaults.log_format),
            log_level: log_level.unwrap_or(defaults.log_level),
        }
    }
}
