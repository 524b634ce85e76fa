def _rune_install(sources):
    """Makes modules importable whose sources are given by name, each with 1 for a package."""
    import sys
    from importlib.machinery import ModuleSpec

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name in sources:
                return ModuleSpec(name, Finder, is_package=bool(sources[name][0]))

        @staticmethod
        def create_module(spec):
            return None

        @staticmethod
        def exec_module(module):
            exec(compile(sources[module.__name__][1], module.__name__, "exec"), module.__dict__)

    sys.meta_path.insert(0, Finder)
