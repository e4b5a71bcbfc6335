//! The report for machines.

use serde::Serialize;

use crate::report::model::{Finding, Report, SCHEMA_VERSION};

pub(crate) fn render(report: &Report) -> anyhow::Result<String> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}

/// One line per finding, with the capture and the server that it is about.
pub(crate) fn findings(report: &Report) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        schema_version: &'static str,
        capture: &'a str,
        url: &'a str,
        #[serde(flatten)]
        finding: &'a Finding,
    }
    let mut text = String::new();
    for capture in &report.captures {
        for server in &capture.servers {
            for finding in &server.findings {
                let line = Line {
                    schema_version: SCHEMA_VERSION,
                    capture: &capture.name,
                    url: &server.url,
                    finding,
                };
                text.push_str(&serde_json::to_string(&line)?);
                text.push('\n');
            }
        }
    }
    Ok(text)
}
