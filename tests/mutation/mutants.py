"""Where a module checks something, and the module with a switch at each of these places.

A mutant is one check that does not refuse. All of a module are compiled into it at once, and `switch` turns one off:

    raise X, in no handler          if keep(i): raise X               (an `if` that refuses, an `else`, a `match`)
    a or b, where that is refused   a and keep(i) or b and keep(j)    (each operand by itself; `not`, any, all, chains
                                                                       and compared tuples are looked through)
    check(x), its value unused      if reach(i): check(x)
    refuse(x), yield Finding(…)     if keep(i): refuse(x)
    return x, in a predicate        return force(x, i, j)             (always true, always false)

A switch is asked where the check has just refused, so whoever asks it is a test in which that check makes a difference.
Of a function that is called to check, nobody can tell before whether it will refuse: it is asked before and after.
"""

import ast
import re
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

__all__ = ["Mutant", "instrument"]

CHECKS: Final = re.compile(
    r"_*(check|verify|require|ensure|validate|own_|same_|no_floats|distinct|bounded|shallow|confined|any_scope|"
    r"parse|canonical|claim_text|public_key|b64decode)|_expect$"
)
"""Functions that are called for what they refuse, where nobody takes what they return."""

REFUSALS: Final = frozenset({"Finding", "_refuse", "refuse"})
"""What is called where a check reports, or answers by itself, instead of raising; `draft.find(…)` does so too."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A check that can be turned off: `id` is module:function#number, `removed` its source."""

    id: str
    line: int
    removed: str

    @property
    def place(self) -> str:
        """The module and the function."""
        return self.id.partition("#")[0]

    @property
    def module(self) -> str:
        """The module's dotted name."""
        return self.id.partition(":")[0]


def instrument(source: str, module: str) -> tuple[ast.Module, list[Mutant]]:
    """Return the module with its switches `__keep__` and `__force__`, and what they turn off."""
    found = _Instrument(module)
    tree = found.visit(ast.parse(source))
    return ast.fix_missing_locations(tree), found.mutants


class _Instrument(ast.NodeTransformer):
    def __init__(self, module: str) -> None:
        self.mutants: list[Mutant] = []
        self._module = module
        self._path: list[str] = []
        self._numbers: Counter[str] = Counter()
        self._predicate = self._in_handler = self._handled = False
        self._reasons: dict[ast.stmt, str] = {}

    # --- statements --------------------------------------------------------------------------------------------------

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                setattr(node, name, self._block(block))
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            self.visit(part)
        return node

    def _block(self, block: list[ast.stmt]) -> list[ast.stmt]:
        return [self._statement(one, then) for one, then in zip_longest(block, block[1:])]

    def _statement(self, node: ast.stmt, then: ast.stmt | None) -> ast.stmt:
        if isinstance(node, ast.If):
            self._condition(node, then)
        elif isinstance(node, ast.Raise):
            return node if self._in_handler else self._switched(node)
        elif _reports(node):
            return self._switched(node)
        elif isinstance(node, ast.Expr) and isinstance(_awaited(node.value), ast.Call):
            if self._handled or CHECKS.match(_name(_awaited(node.value))):
                return self._skipped(node)
        elif isinstance(node, ast.Return) and node.value is not None and self._predicate:
            return self._forced(node, node.value)
        self.visit(node)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> ast.AST:
        before = self._predicate, self._in_handler, self._handled
        returned = None if isinstance(node, ast.ClassDef) else node.returns
        self._predicate = isinstance(returned, ast.Name) and returned.id == "bool"
        self._in_handler = self._handled = False
        self._path.append(node.name)
        self.generic_visit(node)
        self._path.pop()
        self._predicate, self._in_handler, self._handled = before
        return node

    visit_AsyncFunctionDef = visit_ClassDef = visit_FunctionDef  # noqa: N815 - so ast wants it

    def visit_Try(self, node: ast.Try) -> ast.AST:
        before = self._handled
        last = [one.body[-1] for one in node.handlers]
        self._handled = any(isinstance(one, ast.Raise) and one.exc is not None for one in last)
        node.body = self._block(node.body)
        self._handled = before
        node.orelse, node.finalbody = self._block(node.orelse), self._block(node.finalbody)
        node.handlers = [self.visit(one) for one in node.handlers]
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        before, self._in_handler = self._in_handler, True
        self.generic_visit(node)
        self._in_handler = before
        return node

    def _switched(self, node: ast.stmt) -> ast.stmt:
        return ast.copy_location(ast.If(self._keep(node, self._reasons.get(node, "") + _text(node)), [node], []), node)

    def _skipped(self, node: ast.Expr) -> ast.stmt:
        name = ast.Constant(self._new(node, _text(node)))
        reach, keep = (ast.Call(ast.Name(switch, ast.Load()), [name], []) for switch in ("__reach__", "__keep__"))
        handler = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Expr(keep), ast.Raise(None, None)])
        guarded = ast.Try([node], [handler], [], [])
        return ast.copy_location(ast.If(reach, [guarded], []), node)

    def _forced(self, node: ast.Return, value: ast.expr) -> ast.stmt:
        source, both = _text(node), (True, False)
        known = value.value if isinstance(value, ast.Constant) else None
        names = ["" if known is truth else self._new(node, f"{source} is always {truth}") for truth in both]
        values = [self._operands(value, refuses=None), *map(ast.Constant, names)]
        node.value = ast.Call(ast.Name("__force__", ast.Load()), values, [])
        return node

    # --- conditions --------------------------------------------------------------------------------------------------

    def _condition(self, node: ast.If, then: ast.stmt | None) -> None:
        """Drop what makes a condition refuse: each operand of it, and all of it where the other branch goes on."""
        self._reasons[node.body[0]] = f"if {_text(node.test)}: "
        if self._refuses(node.body):
            node.test = self._operands(node.test, refuses=True)
        elif self._refuses(node.orelse) or (_leaves(node.body) and then is not None and self._refuses([then])):
            source = _text(node.test)
            node.test = self._dropped(self._operands(node.test, refuses=False), source, is_or=False)

    def _refuses(self, block: list[ast.stmt]) -> bool:
        last = block[-1] if block else None
        if last is None or isinstance(last, ast.If):
            return False
        if isinstance(last, ast.Return) and self._predicate:
            return isinstance(last.value, ast.Constant) and last.value.value is False
        return isinstance(last, ast.Raise) or any(_reports(one) for one in ast.walk(last))

    def _operands(self, node: ast.expr, *, refuses: bool | None) -> ast.expr:
        """Put a switch at each operand; `refuses` is the truth that refuses, None where both are of interest."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.operand = self._operands(node.operand, refuses=None if refuses is None else not refuses)
        elif (
            isinstance(node, ast.Call) and _name(node) in {"any", "all"} and isinstance(node.args[0], ast.GeneratorExp)
        ):
            node.args[0].elt = self._operands(node.args[0].elt, refuses=refuses)
        elif isinstance(node, ast.BoolOp | ast.Compare):
            is_or, parts = _parts(node)
            sources = [_text(one) for one in parts]
            parts = [self._operands(one, refuses=refuses) for one in parts] if len(parts) > 1 else parts
            if len(parts) > 1 and refuses in {None, is_or}:
                parts = [self._dropped(one, text, is_or=is_or) for one, text in zip(parts, sources, strict=True)]
            if len(parts) > 1:
                return ast.copy_location(ast.BoolOp(ast.Or() if is_or else ast.And(), parts), node)
        return node

    def _dropped(self, node: ast.expr, source: str, *, is_or: bool) -> ast.expr:
        """Return `node and keep(i)` for an operand of `or`, or `node or not keep(i)` for one of `and`."""
        keep = self._keep(node, source)
        if is_or:
            return ast.copy_location(ast.BoolOp(ast.And(), [node, keep]), node)
        return ast.copy_location(ast.BoolOp(ast.Or(), [node, ast.UnaryOp(ast.Not(), keep)]), node)

    def _keep(self, node: ast.expr | ast.stmt, removed: str) -> ast.expr:
        return ast.Call(ast.Name("__keep__", ast.Load()), [ast.Constant(self._new(node, removed))], [])

    def _new(self, node: ast.expr | ast.stmt, removed: str) -> str:
        place = f"{self._module}:{'.'.join(self._path)}"
        self._numbers[place] += 1
        self.mutants.append(Mutant(f"{place}#{self._numbers[place]}", node.lineno, removed))
        return self.mutants[-1].id


def _parts(node: ast.BoolOp | ast.Compare) -> tuple[bool, list[ast.expr]]:
    """Return whether a condition is an `or`, and its operands: of compared tuples and of chains too."""
    if isinstance(node, ast.BoolOp):
        return isinstance(node.op, ast.Or), node.values
    left, right, op = node.left, node.comparators[-1], node.ops[0]
    if _same_length(left, right) and isinstance(op, ast.Eq | ast.NotEq):
        pairs = zip(left.elts, right.elts, strict=True)
        return isinstance(op, ast.NotEq), [_compared(one, op, other) for one, other in pairs]
    sides = [left, *node.comparators]
    if not all(isinstance(one, ast.Name | ast.Attribute | ast.Constant) or _name(one) == "len" for one in sides[1:-1]):
        return False, [node]
    return False, [_compared(*one) for one in zip(sides, node.ops, sides[1:], strict=False)]


def _same_length(left: ast.expr, right: ast.expr) -> bool:
    if not (isinstance(left, ast.Tuple) and isinstance(right, ast.Tuple) and len(left.elts) == len(right.elts)):
        return False
    return not any(isinstance(one, ast.Starred) for one in left.elts + right.elts)


def _compared(left: ast.expr, op: ast.cmpop, right: ast.expr) -> ast.expr:
    return ast.copy_location(ast.Compare(left, [op], [right]), left)


def _reports(node: ast.AST) -> bool:
    """Tell whether a statement says what is wrong, be it wrapped: `yield _Judged(Finding(…), "hardware")`."""
    if not isinstance(node, ast.Expr | ast.Return) or node.value is None:
        return False
    names = REFUSALS | {"_Judged"} if isinstance(node, ast.Expr) else REFUSALS  # a finding of others is passed on
    found = isinstance(node, ast.Expr) and _name(_awaited(node.value)) == "find"
    return found or any(_name(one) in names for one in ast.walk(node.value))


def _leaves(block: list[ast.stmt]) -> bool:
    return isinstance(block[-1], ast.Return | ast.Continue)


def _awaited(node: ast.expr) -> ast.expr:
    return node.value if isinstance(node, ast.Await) else node


def _name(node: ast.AST) -> str:
    """Return the name of what is called, or nothing."""
    called = node.func if isinstance(node, ast.Call) else None
    return called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""


def _text(node: ast.AST) -> str:
    return " ".join(ast.unparse(node).split())
