//! Adds missing imports if a name can only mean one module.

use super::requirements::TargetFile;
use crate::judge::FileInspection;
use crate::judge::StatementKind;
use crate::judge::TopStatement;
use crate::task::SourceFile;

/// Modules of the standard library, with names in them that are unambiguous.
const KNOWN: &[(&str, &[&str])] = &[
    ("abc", &["ABC", "abstractmethod"]),
    ("bisect", &["bisect_left", "bisect_right", "insort"]),
    ("collections", &["Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"]),
    ("copy", &["deepcopy"]),
    ("csv", &[]),
    ("dataclasses", &["dataclass"]),
    ("datetime", &["timedelta"]),
    ("decimal", &["Decimal"]),
    ("enum", &["Enum"]),
    ("fractions", &["Fraction"]),
    ("functools", &["cached_property", "lru_cache", "partial", "reduce", "wraps"]),
    ("hashlib", &[]),
    ("heapq", &["heapify", "heappop", "heappush"]),
    ("io", &["StringIO"]),
    ("itertools", &["accumulate", "chain", "combinations", "groupby", "permutations", "product"]),
    ("json", &[]),
    ("math", &["ceil", "floor", "gcd", "sqrt"]),
    ("os", &[]),
    ("pathlib", &["Path"]),
    ("random", &[]),
    ("re", &[]),
    ("string", &[]),
    ("sys", &[]),
    ("threading", &["Lock", "RLock", "Thread"]),
    ("time", &[]),
    (
        "typing",
        &[
            "Any",
            "Callable",
            "Dict",
            "Generator",
            "Generic",
            "Hashable",
            "Iterable",
            "Iterator",
            "List",
            "Mapping",
            "MutableMapping",
            "NamedTuple",
            "Optional",
            "Sequence",
            "Set",
            "Tuple",
            "Type",
            "TypeVar",
            "Union",
        ],
    ),
];

/// Returns missing import lines: from the standard library, then from the other required files.
pub(super) fn forgotten(inspection: &FileInspection, targets: &[TargetFile]) -> Vec<String> {
    let is_read = |name: &str| inspection.unbound.iter().any(|unbound| unbound == name);
    let mut lines = Vec::new();
    for (module, names) in KNOWN {
        if is_read(module) {
            lines.push(format!("import {module}"));
        }
        let names: Vec<&str> = names.iter().copied().filter(|name| is_read(name)).collect();
        if !names.is_empty() {
            lines.push(format!("from {module} import {}", names.join(", ")));
        }
    }
    for target in targets.iter().filter(|target| target.path != inspection.path) {
        let names = target.names.iter().map(String::as_str);
        let names: Vec<&str> = names.filter(|name| is_read(name)).collect();
        let module = SourceFile::new(target.path.as_str(), "").module();
        if let (Some(module), false) = (module, names.is_empty()) {
            lines.push(format!("from {module} import {}", names.join(", ")));
        }
    }
    lines
}

/// Turns imports into statements of a part.
pub(super) fn add_to(inspection: &mut FileInspection, targets: &[TargetFile]) {
    let statement = |text| TopStatement { kind: StatementKind::Import, names: Vec::new(), text };
    let added = forgotten(inspection, targets).into_iter().map(statement);
    inspection.statements.splice(0..0, added);
}
