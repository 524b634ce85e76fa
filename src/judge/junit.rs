//! Verdicts as JUnit XML, which every CI system reads.

use std::fmt::Write as _;

use super::suite::is_python;
use super::verdict::TestResult;
use super::verdict::TestStatus;
use super::verdict::Verdict;

/// Renders a verdict as a JUnit report of one suite named `name`. If the verdict is not a pass
/// although no test failed, such as at a time limit, an additional test case `verdict` fails:
/// readers count test cases.
pub fn junit_xml(name: &str, verdict: &Verdict) -> String {
    let is_bad = |test: &TestResult| matches!(outcome_tag(test.status), Some("failure" | "error"));
    let is_unexplained = !verdict.passed() && !verdict.tests.iter().any(is_bad);
    let count = |tag: &str| {
        verdict.tests.iter().filter(|test| outcome_tag(test.status) == Some(tag)).count()
    };
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\"",
        verdict.tests.len() + usize::from(is_unexplained),
        count("failure"),
        count("error") + usize::from(is_unexplained),
        count("skipped"),
        verdict.wall.as_secs_f64(),
    );
    let name = escaped(name);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<testsuites {counts}>\n  <testsuite name=\"{name}\" {counts}>\n"
    );
    write_properties(&mut xml, verdict);
    for test in &verdict.tests {
        write_case(&mut xml, test);
    }
    if is_unexplained {
        let outcome = escaped(&verdict.outcome.to_string());
        let _infallible = writeln!(
            xml,
            "    <testcase classname=\"rune\" name=\"verdict\" time=\"0.000\">\n      \
             <error message=\"{outcome}\" type=\"{}\"/>\n    </testcase>",
            verdict.outcome.as_str()
        );
    }
    write_stream(&mut xml, "system-out", &verdict.stdout);
    write_stream(&mut xml, "system-err", &verdict.stderr);
    xml + "  </testsuite>\n</testsuites>\n"
}

fn write_properties(xml: &mut String, verdict: &Verdict) {
    let assurance = verdict.assurance.map_or("none", |assurance| assurance.as_str());
    let properties = [
        ("outcome", verdict.outcome.as_str()),
        ("assurance", assurance),
        ("reason", verdict.why()),
    ];
    xml.push_str("    <properties>\n");
    for (name, value) in properties {
        let value = escaped(value);
        let _infallible = writeln!(xml, "      <property name=\"{name}\" value=\"{value}\"/>");
    }
    xml.push_str("    </properties>\n");
}

fn write_case(xml: &mut String, test: &TestResult) {
    let (class, name) = names(&test.id);
    let _infallible = write!(
        xml,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        escaped(&class),
        escaped(name),
        test.seconds
    );
    let Some(tag) = outcome_tag(test.status) else {
        xml.push_str("/>\n");
        return;
    };
    // Readers show the attribute in lists, and the element's text on demand.
    let message = escaped(test.message.lines().next().unwrap_or_default());
    let text = [test.message.as_str(), test.trace.as_str()].join("\n");
    let _infallible = writeln!(
        xml,
        ">\n      <{tag} message=\"{message}\" type=\"{}\">{}</{tag}>\n    </testcase>",
        test.status.as_str(),
        escaped(text.trim_end())
    );
}

fn write_stream(xml: &mut String, tag: &str, text: &str) {
    if !text.is_empty() {
        let _infallible = writeln!(xml, "    <{tag}>{}</{tag}>", escaped(text));
    }
}

/// The element that marks a test that did not pass.
fn outcome_tag(status: TestStatus) -> Option<&'static str> {
    match status {
        TestStatus::Passed => None,
        TestStatus::Failed => Some("failure"),
        TestStatus::Error | TestStatus::Missing => Some("error"),
        TestStatus::Skipped | TestStatus::ExpectedFailure => Some("skipped"),
    }
}

/// Splits a test id into class and name as pytest does: `tests.test_a.TestB` and `test_c[::]` for
/// `tests/test_a.py::TestB::test_c[::]`.
fn names(id: &str) -> (String, &str) {
    // Parameters in brackets may contain any separator.
    let head = id.split('[').next().unwrap_or(id);
    let (class, name) = match (head.rfind("::"), head.rfind('.')) {
        (Some(at), _) => (&id[..at], &id[at + 2..]),
        (None, Some(at)) if !is_python(head) => (&id[..at], &id[at + 1..]),
        _ => ("", id),
    };
    (class.replace(".py::", ".").replace("::", ".").replace('/', ".").replace(".py", ""), name)
}

/// Escapes text for XML attributes and elements. Characters that XML forbids are written in the
/// form `\u{1b}`.
fn escaped(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => clean.push_str("&amp;"),
            '<' => clean.push_str("&lt;"),
            '>' => clean.push_str("&gt;"),
            '"' => clean.push_str("&quot;"),
            // In an attribute, an XML reader would replace plain white space by spaces.
            '\n' | '\t' | '\r' => {
                let _infallible = write!(clean, "&#{};", u32::from(c));
            }
            '\u{fffe}' | '\u{ffff}' => clean.extend(c.escape_unicode()),
            c if c.is_control() => clean.extend(c.escape_unicode()),
            c => clean.push(c),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::judge::Assurance;
    use crate::judge::VerdictOutcome;

    fn test(id: &str, status: TestStatus, message: &str) -> TestResult {
        let (message, trace) = (message.to_owned(), String::new());
        TestResult { id: id.to_owned(), status, message, trace, seconds: 0.0125 }
    }

    fn verdict(outcome: VerdictOutcome, tests: Vec<TestResult>) -> Verdict {
        Verdict {
            assurance: (outcome == VerdictOutcome::Pass).then_some(Assurance::SameProcess),
            outcome,
            reason: "the tests patch `open`".to_owned(),
            n_passed: 1,
            n_total: tests.len(),
            tests,
            cpu: Duration::ZERO,
            wall: Duration::from_millis(1500),
            stdout: String::new(),
            stderr: String::new(),
        }
    }

    #[test]
    fn report_names_every_test_and_the_assurance() {
        let tests = vec![
            test("tests/test_a.py::TestB::test_c[::x]", TestStatus::Passed, ""),
            test("test_a.TestB.test_d", TestStatus::Failed, "1 < 2 & \"x\"\nmore\u{1b}[2J\u{ffff}"),
            test("test_a.py", TestStatus::Skipped, "no <network>"),
        ];
        insta::assert_snapshot!(junit_xml("a&b", &verdict(VerdictOutcome::Wrong, tests)), @r#"
        <?xml version="1.0" encoding="utf-8"?>
        <testsuites tests="3" failures="1" errors="0" skipped="1" time="1.500">
          <testsuite name="a&amp;b" tests="3" failures="1" errors="0" skipped="1" time="1.500">
            <properties>
              <property name="outcome" value="wrong"/>
              <property name="assurance" value="none"/>
              <property name="reason" value="the tests patch `open`"/>
            </properties>
            <testcase classname="tests.test_a.TestB" name="test_c[::x]" time="0.013"/>
            <testcase classname="test_a.TestB" name="test_d" time="0.013">
              <failure message="1 &lt; 2 &amp; &quot;x&quot;" type="failed">1 &lt; 2 &amp; &quot;x&quot;&#10;more\u{1b}[2J\u{ffff}</failure>
            </testcase>
            <testcase classname="" name="test_a.py" time="0.013">
              <skipped message="no &lt;network&gt;" type="skipped">no &lt;network&gt;</skipped>
            </testcase>
          </testsuite>
        </testsuites>
        "#);
    }

    #[test]
    fn limit_without_a_failed_test_is_a_case_of_its_own() {
        let tests = vec![test("test_a.py::test_b", TestStatus::Passed, "")];
        let xml = junit_xml("s", &verdict(VerdictOutcome::CpuLimit, tests));
        assert!(xml.contains("tests=\"2\" failures=\"0\" errors=\"1\""), "{xml}");
        assert!(xml.contains("<error message=\"out of processor time\" type=\"cpu_limit\"/>"));
    }
}
