"""Runs test files with the real pytest."""

import os
import sys

import pytest
import rune_trace as trace


def settle(report, call):
    """(status, message, trace) of one phase of a test."""
    if report.skipped:
        status = "expected_failure" if hasattr(report, "wasxfail") else "skipped"
        return status, str(getattr(report, "wasxfail", "") or report.longreprtext)[-300:], ""
    if report.passed:
        return ("failed", "unexpected success", "") if hasattr(report, "wasxfail") else ("passed", "", "")
    error = call.excinfo.value if call.excinfo else None
    if error is None:
        return "failed", report.longreprtext[-2000:], ""
    text = str(call.excinfo.value) if isinstance(error, AssertionError) else trace.message(error)
    status = "failed" if isinstance(error, (AssertionError, pytest.fail.Exception)) else "error"
    return status, text, trace.frames(error)


def plugin(canary, enter, begin, end, files, root):
    """The hooks that report. `enter()` lets the solution's folder in, after plugins were loaded."""

    class Reporter:
        def pytest_load_initial_conftests(self):
            # After the hooks marked tryfirst, which patch pytest itself.
            enter()

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items):
            if items:
                def body():
                    assert "canary" == canary

                parent = items[0].getparent(pytest.Module)
                items.insert(len(canary) % len(items), pytest.Function.from_parent(parent, name=canary, callobj=body))

        def pytest_collectreport(self, report):
            if not report.failed:
                return
            for file in files:
                if report.nodeid == file["path"] or report.nodeid in ("", "."):
                    for expected in file["ids"]:
                        begin(expected)
                        end(expected, "error", collect_message(report), "")

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(self, item, call):
            report = yield
            status, message, where = settle(report, call)
            base, bracket, case = item.nodeid.partition("[")
            if call.when == "setup":
                begin(base, bracket + case)
            if call.when == "call" or status != "passed" and not (call.when == "teardown" and status == "skipped"):
                stash.setdefault(item.nodeid, []).append((status, message, where))
            if call.when == "teardown":
                outcomes = stash.pop(item.nodeid, [("error", "the test was not carried out", "")])
                worst = next((one for one in outcomes if one[0] != "passed"), outcomes[0])
                end(base, *worst, bracket + case)
            return report

    stash = {}
    return Reporter()


def collect_message(report):
    """The error lines of a failed import, without pytest's frames."""
    lines = str(report.longreprtext).splitlines()
    picked = [line[1:].strip() for line in lines if line.startswith("E ")]
    return "\n".join(picked or lines[-5:])


def run_files(root, files, canary, enter, begin, end):
    """Runs `files` below `root`; nothing of the solution's folder configures pytest."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
        os.environ.pop(name, None)
    paths = [os.path.join(root, file["path"]) for file in files]
    options = ["-c", "/dev/null", "--rootdir", root, "--confcutdir", root, "-p", "no:cacheprovider", "-q", "--no-header"]
    options += ["-p", "no:faulthandler", "--tb=short"]
    pytest.main(options + paths, plugins=[plugin(canary, enter, begin, end, files, root)])
