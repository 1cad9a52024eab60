"""Count lines of code: no blank lines, comments or docstrings.

python tools/count_lines.py                 the library and its tests
python tools/count_lines.py ageflow/flows   any folder or file
"""

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(text: str) -> int:
    """Lines of Python source that hold code.

    Example:
        >>> code_lines('def one():  # a comment\\n    \"\"\"Its docstring.\"\"\"\\n\\n    return 1\\n')
        2
    """
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return len(lines)


def count(folder: Path) -> dict[Path, int]:
    """Lines of code of every Python file in a folder, or of one file."""
    files: Iterable[Path] = [folder] if folder.is_file() else sorted(folder.rglob("*.py"))
    return {file: code_lines(file.read_text()) for file in files}


def main(names: list[str]) -> None:
    """Print the lines of each file, of each folder and in all."""
    for name in names or ["ageflow", "tests"]:
        counted, folders = count(Path(name)), Counter()
        for file, lines in counted.items():
            folders[file.parent] += lines
            print(f"{lines:6,}  {file}")
        for folder, lines in folders.items():
            print(f"{lines:6,}  {folder}/")
        print(f"{sum(counted.values()):6,}  {name}, {len(counted)} files\n")


if __name__ == "__main__":
    main(sys.argv[1:])
