//! Files are inspected without being executed.

use rune::judge::StubKind;

use super::Bench;
use super::files;

const SHOP: &str = r#"
"""A shop."""
import json, os.path
from collections import OrderedDict as Ordered
from . import sibling

LIMIT = 3
__all__ = ["Cart"]
_private = 1
computed = len([])

@decorated
class Cart(Base, metaclass=Meta):
    """Holds goods.

    More text."""
    size: int = 0

    def add(
        self,
        name: str,
        *, count: int = 1,
    ) -> None:
        """Adds one."""
        self.size += count

    async def pay(self, /, amount): return amount

    def _hidden(self): ...

def total(*items, **options) -> "int":
    # ... existing code ...
    pass
"#;

#[tokio::test]
async fn interface_is_flat_and_public() {
    let bench = Bench::open();
    let found =
        bench.judge().inspect(&files(&[("shop.py", SHOP), ("notes.md", "#")])).await.unwrap();
    insta::assert_snapshot!(found[0].interface, @"
    LIMIT = 3
    __all__ = ['Cart']
    @decorated
    class Cart(Base, metaclass=Meta):  # Holds goods.
        size: int = 0
        def add(self, name: str, *, count: int=1) -> None: ...  # Adds one.
        async def pay(self, /, amount): ...
    def total(*items, **options) -> 'int': ...
    ");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].imports, ["collections", "json", "os"]);
    assert_eq!(found[0].defines, ["LIMIT", "__all__", "_private", "computed", "Cart", "total"]);
    assert_eq!(found[0].stubs, ["Cart._hidden", "total"]);
    assert_eq!(found[0].elisions, ["# ... existing code ..."]);
    assert!(!found[0].is_complete());
}

#[tokio::test]
async fn digests_see_through_comments_layout_and_docstrings() {
    let texts = [
        ("a.py", "def f(x):\n    return x+1\n"),
        ("b.py", "# note\ndef f( x ):\n    'doc'\n\n    return (x + 1)\n"),
        ("c.py", "def f(x):\n    return x+2\n"),
    ];
    let bench = Bench::open();
    let found = bench.judge().inspect(&files(&texts)).await.unwrap();
    assert_eq!(found[0].digest, found[1].digest);
    assert_ne!(found[0].digest, found[2].digest);
}

#[tokio::test]
async fn syntax_errors_and_suspicious_names_are_reported() {
    let texts = [
        ("a.py", "x = 1\ndef f(:\n    pass\n"),
        ("b.py", "import os, atexit\nfrom sys import modules\nos._exit(0)\n"),
        ("c.py", "\0"),
        ("d.py", ""),
    ];
    let bench = Bench::open();
    let found = bench.judge().inspect(&files(&texts)).await.unwrap();
    let error = found[0].error.as_ref().unwrap();
    assert_eq!((error.line, error.text.as_str()), (2, "def f(:"));
    assert_eq!(found[1].suspicious, ["atexit", "os._exit", "sys.modules"]);
    assert!(found[2].error.is_some());
    assert!(found[3].is_complete());
}

#[tokio::test]
async fn stubs_keep_signatures_and_do_nothing() {
    let bench = Bench::open();
    let solution = files(&[
        ("a.py", "class A:\n    def f(self, x: int) -> int:\n        return x\n"),
        ("n.txt", "n"),
    ]);
    let stub = bench.judge().stub_of(&solution, StubKind::Raises).await.unwrap();
    assert_eq!(
        stub[0].text,
        "class A:\n\n    def f(self, x: int) -> int:\n        raise NotImplementedError\n"
    );
    assert_eq!(stub[1], solution[1]);
}

#[tokio::test]
async fn documented_names_stand_under_the_module_that_offers_them() {
    let package = [
        (
            "zorb/__init__.py",
            "import os\nfrom . import _codes, shapes\nfrom ._lines import _cut as cut, join\n\
             from zorb._codes import *\nfrom .shapes import Circle\nfrom os import path\n\
             from ._absent import gone\n\n__all__ = ['cut', 'join', 'encode', 'Circle', 'gone']\n",
        ),
        (
            "zorb/_lines.py",
            "def _cut(text: str): 'Cuts.'\ndef join(*parts): 'Joins.\\n\\nAll of them.'\ndef hidden(): ...\n",
        ),
        ("zorb/_codes.py", "from ._deep.codes import encode\ndef decode(text): ...\n"),
        ("zorb/_deep/codes.py", "def encode(text): 'Encodes.'\n"),
        (
            "zorb/shapes.py",
            "from ._lines import join\nclass Circle: 'Round.'\nclass Square: 'Has corners.'\n",
        ),
        ("zorb/broken.py", "def ("),
        ("zorb/loops/__init__.py", "from .more import *\nfrom . import around\n"),
        ("zorb/loops/more.py", "from . import *\nfrom .around import around\n"),
        ("notes.md", "# Notes"),
    ];
    let bench = Bench::open();
    let found = bench.judge().documentation(&files(&package)).await.unwrap();
    let shown: Vec<String> =
        found.iter().map(|entry| format!("{}: {}", entry.module, entry.text)).collect();
    insta::assert_snapshot!(shown.join("\n"), @"
    zorb: def cut(text: str): ...  # Cuts.
    zorb: def join(*parts): ...  # Joins.
    # All of them.
    zorb: class Circle:  # Round.
        ...
    zorb: def encode(text): ...  # Encodes.
    zorb.shapes: class Square:  # Has corners.
        ...
    ");
}
