"""Reads the source of a CEL expression without evaluating it: which paths it uses, which macros, and is it allowed?

The paths (`payload.a`, `tasks["x"].result`) are cut out and replaced by variables, so that CEL receives the values
behind them and nothing else: what an expression may cost depends on what it uses, and actions are known statically.
Pure; called by `expressions.py`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestration.definition.scope import ITEM_ROOTS, ROOTS, Path
from orchestration.errors import ExpressionError

#: Longest source, in bytes; more than anybody writes, little enough for the compiler.
MAX_SOURCE_BYTES = 2048
#: Macros that loop, in one expression; their costs multiply.
MAX_LOOPS = 3
#: Macros that run their last argument for each element.
LOOPS = frozenset({"all", "exists", "exists_one", "map", "filter"})
#: Macros that bind a variable without looping.
BINDERS = frozenset({"optMap", "optFlatMap"})

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<string>(?:[bB]?[rR]|[rR][bB])(?:\"\"\"[\s\S]*?\"\"\"|'''[\s\S]*?'''|"[^"\n]*"|'[^'\n]*')
               |[bB]?(?:\"\"\"(?:[^\\]|\\[\s\S])*?\"\"\"|'''(?:[^\\]|\\[\s\S])*?'''
                       |"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>[\s\S])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[\s\S])")
_SIMPLE_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v",
                   "\\": "\\", '"': '"', "'": "'", "`": "`", "?": "?"}  # fmt: skip
#: After one of these a name with a dot before it is a field, not a variable.
_CLOSING = frozenset({")", "]", "}"})


class WrongExpression(ExpressionError):
    """An expression that can't be used; `offset` is where in its source, in characters."""

    def __init__(self, message: str, offset: int = 0) -> None:
        self.offset = offset
        super().__init__(message)

    def __reduce__(self) -> tuple[type[WrongExpression], tuple[str, int]]:
        return WrongExpression, (str(self), self.offset)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the source; `kind` is string, number, name or mark."""

    kind: str
    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Use:
    """A place where a variable stands for a path in the rewritten source; the same path has the same variable."""

    variable: str
    path: Path
    #: Stands in the body of this many loops.
    loop_depth: int


@dataclass(frozen=True, slots=True)
class Loop:
    """A macro that loops."""

    macro: str
    #: Number of loops around this one.
    depth: int


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of an expression from its source alone."""

    text: str
    #: The text with variables in place of paths; what CEL compiles.
    rewritten: str
    #: The letter that all those variables start with.
    prefix: str
    uses: tuple[Use, ...]
    loops: tuple[Loop, ...]
    #: Set when the expression is nothing but a path.
    plain: Path | None
    #: Of the text.
    tokens: tuple[Token, ...]
    #: Half-open ranges of tokens: what loops do for each element.
    bodies: tuple[tuple[int, int], ...]
    #: (offset in the rewritten source, offset in the text) behind each path, in order.
    moves: tuple[tuple[int, int], ...]

    def original_offset(self, rewritten_offset: int) -> int:
        """Where in the text a place of the rewritten source is; within a path, its end."""
        after, before = next((move for move in reversed(self.moves) if move[0] <= rewritten_offset), self.moves[0])
        return min(before + rewritten_offset - after, len(self.text))

    @property
    def references(self) -> frozenset[str]:
        return frozenset(str(use.path.keys[0]) for use in self.uses if use.path.root == "tasks")

    @property
    def uses_item(self) -> bool:
        return any(use.path.root in ITEM_ROOTS for use in self.uses)


def tokenize(text: str, start: int = 0) -> list[Token]:
    """Split a source into tokens; what is no token comes out as marks, for CEL to complain about."""
    return [
        Token(match.lastgroup or "mark", match.group(), match.start())
        for match in _TOKEN.finditer(text, start)
        if match.lastgroup != "space"
    ]


def read_source(text: str) -> Source:
    """Find the paths and loops of an expression.

    Raises: WrongExpression: it is empty, too long, has too many macros, or names an action in a way that can't be
        known before the run.
    """
    if not text.strip():
        raise WrongExpression("the expression is empty")
    size_bytes = len(text.encode("utf-8", "surrogatepass"))
    if size_bytes > MAX_SOURCE_BYTES:
        raise WrongExpression(
            f"the expression has {size_bytes} bytes; at most {MAX_SOURCE_BYTES} are allowed. Do this in an action"
        )
    tokens = tokenize(text)
    loops, bodies = _find_loops(tokens)
    if len(loops) > MAX_LOOPS:
        raise WrongExpression(
            f"the expression has {len(loops)} macros that loop (all, exists, exists_one, map, filter); "
            f"at most {MAX_LOOPS} are allowed. Do this in an action"
        )
    prefix = _free_prefix(tokens)
    pieces: list[str] = []
    uses: list[Use] = []
    variables: dict[Path, str] = {}
    moves = [(0, 0)]
    plain: Path | None = None
    done = position = 0
    while position < len(tokens):
        if not _is_root(tokens, position):
            position += 1
            continue
        path, end = _read_path(tokens, position)
        start = position - 1 if position and tokens[position - 1].text == "." else position
        if start == 0 and end == len(tokens):
            plain = path
        first, last = tokens[start], tokens[end - 1]
        length = last.offset + len(last.text) - first.offset
        variable = variables.setdefault(path, f"{prefix}{len(variables)}")
        uses.append(Use(variable, path, sum(low <= position < high for low, high in bodies)))
        pieces += [text[done : first.offset], variable]
        done = first.offset + length
        moves.append((sum(map(len, pieces)), done))
        position = end
    pieces.append(text[done:])
    return Source(text, "".join(pieces), prefix, tuple(uses), loops, plain, tuple(tokens), tuple(bodies), tuple(moves))


def _is_root(tokens: list[Token], position: int) -> bool:
    token = tokens[position]
    if token.kind != "name" or token.text not in ROOTS or _text(tokens, position + 1) == "(":
        return False
    before = position - 1
    if _text(tokens, before) == "?":
        before -= 1 if _text(tokens, before - 1) == "." else 0
    if _text(tokens, before) != ".":
        return True
    owner = tokens[before - 1] if before else None
    return owner is None or (owner.kind == "mark" and owner.text not in _CLOSING) or owner.text == "in"


def _read_path(tokens: list[Token], position: int) -> tuple[Path, int]:
    """Read the path that starts at `position`; returns it and the position after it."""
    root = tokens[position]
    keys: list[str | int] = []
    ends = [position + 1]
    selected = False
    while True:
        at = ends[-1]
        if (
            _text(tokens, at) == "."
            and at + 1 < len(tokens)
            and tokens[at + 1].kind == "name"
            and _text(tokens, at + 2) != "("
        ):
            keys.append(tokens[at + 1].text)
            ends.append(at + 2)
            selected = True
        elif _text(tokens, at) == "[" and _text(tokens, at + 2) == "]":
            key = _literal(tokens[at + 1])
            if key is None:
                break
            keys.append(key)
            ends.append(at + 3)
            selected = False
        else:
            break
    in_has = _text(tokens, position - 1) == "(" and _text(tokens, position - 2) == "has"
    if in_has and selected and _text(tokens, ends[-1]) == ")":
        # has() asks about the last field, so CEL must see that.
        keys.pop()
        ends.pop()
    if root.text == "tasks" and not (keys and isinstance(keys[0], str)):
        raise WrongExpression(
            'tasks must be followed by the name of an action, as in tasks.fetch.result or tasks["fetch"].result; '
            "the name can't be computed, because the graph is known before the run",
            root.offset,
        )
    return Path(root.text, tuple(keys)), ends[-1]


def _find_loops(tokens: list[Token]) -> tuple[tuple[Loop, ...], list[tuple[int, int]]]:
    """Find the loops and, as half-open ranges of tokens, their bodies."""
    found: list[tuple[int, str, int, int]] = []
    for position in range(2, len(tokens)):
        macro = tokens[position - 1].text
        binds = macro in LOOPS or macro in BINDERS
        if tokens[position].text != "(" or not binds or tokens[position - 2].text != ".":
            continue
        variable = tokens[position + 1] if position + 2 < len(tokens) else None
        if variable is None or variable.kind != "name" or tokens[position + 2].text != ",":
            continue
        if variable.text in ROOTS:
            raise WrongExpression(
                f"{macro}() can't call its variable {variable.text}, which has a meaning already; use another name",
                variable.offset,
            )
        if macro in LOOPS:
            found.append((position, macro, position + 3, _closing(tokens, position)))
    bodies = [(low, high) for _, _, low, high in found]
    loops = tuple(Loop(macro, sum(low <= position < high for low, high in bodies)) for position, macro, _, _ in found)
    return loops, bodies


def _closing(tokens: list[Token], position: int) -> int:
    depth = 0
    for at in range(position, len(tokens)):
        if tokens[at].kind != "mark":
            continue
        depth += (tokens[at].text in "([{") - (tokens[at].text in ")]}")
        if depth == 0:
            return at
    return len(tokens)


def _literal(token: Token) -> str | int | None:
    """The value of a literal that can be a key of a path, or None."""
    if token.kind == "number":
        return int(token.text) if token.text.isdecimal() and len(token.text) < 18 else None
    if token.kind != "string" or token.text[0] in "bB" or token.text[:2].lower() == "rb":
        return None
    raw = token.text[0] in "rR"
    text = token.text[1:] if raw else token.text
    width = 3 if text[:3] in ('"""', "'''") else 1
    text = text[width:-width]
    if raw or "\\" not in text:
        return text
    return _unescape(text)


def _unescape(text: str) -> str | None:
    pieces: list[str] = []
    done = 0
    for match in _ESCAPE.finditer(text):
        code = match.group(1)
        if len(code) > 1:
            number = int(code[1:], 16)
            character = chr(number) if number < 0x110000 else None
        else:
            character = _SIMPLE_ESCAPES.get(code)
        if character is None:
            return None
        pieces += [text[done : match.start()], character]
        done = match.end()
    return "".join([*pieces, text[done:]])


def _free_prefix(tokens: list[Token]) -> str:
    """A letter with which no name in the expression starts, so that a variable of ours can't be one of its own."""
    taken = {token.text[0] for token in tokens if token.kind == "name"}
    free = next((letter for letter in PREFIXES if letter not in taken), None)
    if free is None:
        raise WrongExpression(f"names start with all of the letters {', '.join(PREFIXES)}; call some of them otherwise")
    return free


#: Letters for the variables that stand for paths.
PREFIXES = "VWXYZQKJ"


def _text(tokens: list[Token], position: int) -> str:
    return tokens[position].text if 0 <= position < len(tokens) else ""
