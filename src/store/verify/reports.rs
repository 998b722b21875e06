//! Reports of superseded writes: their numbers, their values, and the sum of what they take.

use std::ops::ControlFlow;

use super::records::names;
use super::{Check, problem_of, shown};
use crate::store::disk::engine::{EngineError, Family};
use crate::store::disk::layout;
use crate::store::disk::split;
use crate::store::write::reports::{Reports, StoredReport};
use crate::store::{ReadError, checked_key};

const SHOWN: &str = "`kvs superseded` does not show this write whole; the records are not \
                     concerned";

impl Check<'_> {
    /// Verifies the reports; `reports` says by the meta entry which there are.
    pub(super) fn reports(&mut self, reports: Reports) -> Result<(), EngineError> {
        let (engine, mut bytes, mut failed) = (self.engine, 0_u64, Ok(()));
        let found_before = self.done.found;
        engine.scan(Family::Superseded, &[], None, &mut |entry, value| {
            self.count();
            let done = match layout::report_number(entry) {
                Some(number) => self.report(reports, number, value).map(|cost| bytes += cost),
                None => self.report_value(entry),
            };
            failed = done;
            if failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        failed?;
        let Reports { first, next, bytes: counted } = reports;
        let missing = next.saturating_sub(first).saturating_sub(self.done.reports);
        if missing > 0 {
            let problem = format!("{missing} of the reports {first} to {next} are missing");
            self.found(Family::Superseded, "", problem, SHOWN);
        } else if bytes != counted && self.done.found == found_before {
            // a report that disagrees is named by itself
            let problem = format!("the reports take {bytes} bytes, and {counted} are counted");
            self.found(Family::Superseded, "", problem, SHOWN);
        }
        Ok(())
    }

    /// Verifies a report; gives what it takes.
    fn report(&mut self, reports: Reports, number: u64, bytes: &[u8]) -> Result<u64, EngineError> {
        let name = format!("report {number}");
        if !(reports.first..reports.next).contains(&number) {
            let problem = "it is not among those that are kept".to_owned();
            self.found(Family::Superseded, &name, problem, SHOWN);
            return Ok(0);
        }
        self.done.reports += 1;
        let report = match decoded(bytes) {
            Ok(report) => report,
            Err(error) => {
                self.found(Family::Superseded, &name, problem_of(&error), SHOWN);
                return Ok(0);
            }
        };
        if report.has_value {
            let at = layout::report_value_key(number);
            let value = self.engine.get(Family::Superseded, &at)?;
            if !value.is_some_and(|value| names(&report.lost.content, &value)) {
                let problem = "the value of the lost write is missing, or another".to_owned();
                self.found(Family::Superseded, &name, problem, SHOWN);
            }
        }
        Ok(report.cost(number, bytes.len()))
    }

    /// Verifies that the value under `entry` belongs to a report.
    fn report_value(&mut self, entry: &[u8]) -> Result<(), EngineError> {
        let number = split::report_value_number(entry);
        let report = match number {
            Some(number) => self.engine.get(Family::Superseded, &layout::report_key(number))?,
            None => None,
        };
        let belongs = |bytes: bytes::Bytes| decoded(&bytes).is_ok_and(|report| report.has_value);
        if !report.is_some_and(belongs) {
            let name = number.map_or_else(|| shown(entry), |number| format!("report {number}"));
            let problem = "a value belongs to no report".to_owned();
            self.found(Family::Superseded, &name, problem, SHOWN);
        }
        Ok(())
    }
}

fn decoded(bytes: &[u8]) -> Result<StoredReport, ReadError> {
    let report: StoredReport = layout::decode_meta(layout::REPORTS, bytes)?;
    checked_key(report.key.as_bytes())?;
    Ok(report)
}
