"""Collects a suite's tests with the real frameworks, with permissive stand-ins for the solution."""

import importlib.machinery
import sys
import types

# Values requested from stand-ins during the collection: then the tests depend on values of the solution.
consulted = []


class Anything:
    """Stands for any value that a test file takes from the solution."""

    def __init__(self, name):
        self.__dict__["__name__"] = self.__dict__["__qualname__"] = name

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Anything(name)

    def __call__(self, *args, **kwargs):
        """Used as a decorator, returns the decorated object."""
        if len(args) == 1 and not kwargs and isinstance(args[0], (types.FunctionType, type)):
            return args[0]
        return Anything("result")

    def __mro_entries__(self, bases):
        return (type(self.__name__, (), {}),)

    def __iter__(self):
        consulted.append(self.__name__)
        return iter(())

    def asked(self, *args):
        consulted.append(self.__name__)
        return True

    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __bool__ = asked
    __ne__ = asked
    __hash__ = object.__hash__

    def __len__(self):
        consulted.append(self.__name__)
        return 0

    def same(self, *args):
        return Anything(self.__name__)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __or__ = __ror__ = __and__ = __getitem__ = __enter__ = same

    def __exit__(self, *args):
        return False


class StandIn(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Anything(name)


class Finder:
    """Import finder of last resort: provides stand-ins for modules of the solution."""

    def __init__(self, names):
        self.names, self.missing = names, []

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top.startswith(("_", "rune_")) or (self.names and top not in self.names):
            return None
        if not self.is_asked_by_tests():
            return None
        self.missing.append(name)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    @staticmethod
    def is_asked_by_tests():
        """Whether the import is in a file of the tests, and not in a library for which it is optional."""
        frame = sys._getframe(2)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back
        return frame is None or "site-packages" not in frame.f_code.co_filename

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


def run(plan, reporter, runner):
    sys.meta_path.append(Finder(set(plan["solution"])))
    framework = plan["framework"]
    if framework == "auto":
        try:
            framework = runner.choose(plan["box"], plan["files"], plan["targets"])
        except Exception:
            framework = "unittest"  # which says what is wrong
    reporter.say("framework", name=framework)
    if framework != "pytest" or "pytest" in sys.modules:
        runner.run(framework, plan["box"], plan["targets"], reporter, only_collect=True)
    reporter.say("collected_whole", whole=not consulted)
