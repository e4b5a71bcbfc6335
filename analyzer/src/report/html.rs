use crate::report::model::Report;
pub(crate) fn render(report: &Report) -> String {
    report.verdict.headline.clone()
}
