//! `time`: the time in a zone, and the conversion between zones.

use std::sync::Arc;

use jiff::{Timestamp, Zoned, civil, tz::TimeZone};
use serde_json::json;

use super::{BuiltinTool, ToolFuture, ToolOutput};
use crate::base::{clock::Clock, json::raw::RawJson};

/// Returns the tools of the server.
pub(super) fn tools(clock: &Arc<dyn Clock>) -> Vec<Arc<dyn BuiltinTool>> {
    vec![Arc::new(Now(Arc::clone(clock))), Arc::new(Convert(Arc::clone(clock)))]
}

struct Now(Arc<dyn Clock>);

impl BuiltinTool for Now {
    fn name(&self) -> &'static str {
        "time_now"
    }

    fn describe(&self) -> RawJson {
        RawJson::from(&json!({
            "name": self.name(),
            "title": "Current time",
            "description": "Returns the current date and time in a time zone.",
            "inputSchema": {
                "type": "object",
                "properties": { "timezone": { "type": "string", "description":
                    "IANA name, such as Europe/Zurich; the zone of this machine if omitted" } },
            },
            "annotations": { "readOnlyHint": true, "openWorldHint": false },
        }))
    }

    fn call<'a>(&'a self, arguments: Option<RawJson>) -> ToolFuture<'a> {
        Box::pin(async move {
            let now = now(self.0.as_ref());
            Ok(describe_time(&now.to_zoned(zone(text(arguments.as_ref(), "timezone"))?)))
        })
    }
}

struct Convert(Arc<dyn Clock>);

impl BuiltinTool for Convert {
    fn name(&self) -> &'static str {
        "time_convert"
    }

    fn describe(&self) -> RawJson {
        RawJson::from(&json!({
            "name": self.name(),
            "title": "Convert a time",
            "description": "Converts a time from one time zone to another; summer time counts.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "time": { "type": "string", "description":
                        "HH:MM (today) or YYYY-MM-DDTHH:MM[:SS]" },
                    "source_timezone": { "type": "string", "description":
                        "IANA name; the zone of this machine if omitted" },
                    "target_timezone": { "type": "string", "description": "IANA name" },
                },
                "required": ["time", "target_timezone"],
            },
            "annotations": { "readOnlyHint": true, "openWorldHint": false },
        }))
    }

    fn call<'a>(&'a self, arguments: Option<RawJson>) -> ToolFuture<'a> {
        Box::pin(async move {
            let arguments = arguments.as_ref();
            let source = zone(text(arguments, "source_timezone"))?;
            let target =
                text(arguments, "target_timezone").ok_or("`target_timezone` is missing")?;
            let written = text(arguments, "time").ok_or("`time` is missing")?;
            let today = now(self.0.as_ref()).to_zoned(source.clone()).date();
            let moment = parse_time(&written, today).ok_or_else(|| {
                format!("`{written}` is no time; write HH:MM or YYYY-MM-DDTHH:MM:SS")
            })?;
            let from = moment.to_zoned(source).map_err(|error| error.to_string())?;
            let to = from.with_time_zone(zone(Some(target))?);
            let shift = (to.offset().seconds() - from.offset().seconds()) as f64 / 3_600.0;
            let value = json!({
                "source": time_json(&from),
                "target": time_json(&to),
                "difference_hours": shift,
            });
            let text = format!("{} is {} ({shift:+} h)", show(&from), show(&to));
            Ok(ToolOutput { text, structured: Some(RawJson::from(&value)) })
        })
    }
}

fn now(clock: &dyn Clock) -> Timestamp {
    Timestamp::from_millisecond(clock.unix().0).unwrap_or_default()
}

fn text(arguments: Option<&RawJson>, name: &str) -> Option<String> {
    arguments?.json().non_empty_at(name)
}

fn zone(name: Option<String>) -> Result<TimeZone, String> {
    match name {
        None => Ok(TimeZone::system()),
        Some(name) => TimeZone::get(&name).map_err(|_| {
            format!("`{name}` is no time zone; write a name such as Europe/Zurich or UTC")
        }),
    }
}

fn parse_time(written: &str, today: civil::Date) -> Option<civil::DateTime> {
    let written = written.trim();
    if let Ok(moment) = written.replace(' ', "T").parse::<civil::DateTime>()
        && written.contains('-')
    {
        return Some(moment);
    }
    let time: civil::Time = written.parse().ok()?;
    Some(today.to_datetime(time))
}

fn show(time: &Zoned) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S %Z (%A)").to_string()
}

fn time_json(time: &Zoned) -> serde_json::Value {
    json!({
        "timezone": time.time_zone().iana_name().unwrap_or("local"),
        "datetime": time.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        "day_of_week": time.strftime("%A").to_string(),
    })
}

fn describe_time(time: &Zoned) -> ToolOutput {
    ToolOutput { text: show(time), structured: Some(RawJson::from(&time_json(time))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::FakeClock;

    #[tokio::test]
    async fn summer_time_counts() {
        let clock: Arc<dyn Clock> = Arc::new(FakeClock::default());
        let convert = Convert(clock);
        for (time, shift) in [
            ("2026-01-15T12:00", "06:00:00"),
            ("2026-07-15T12:00", "06:00:00"),
            ("2026-03-15T12:00", "07:00:00"),
        ] {
            let arguments = RawJson::from(&json!({ "time": time,
                "source_timezone": "Europe/Zurich", "target_timezone": "America/New_York" }));
            let output = convert.call(Some(arguments)).await.expect("a time");
            assert!(output.text.contains(shift), "{}", output.text);
        }
        let wrong = RawJson::from(&json!({ "time": "25:00", "target_timezone": "UTC" }));
        assert!(convert.call(Some(wrong)).await.is_err());
    }
}
