# SPDX-License-Identifier: Apache-2.0
"""Reads a public C header: what it says at its head, its types, and its functions, each with the comment above it."""
import re


def uncomment(block):
    """A block of // lines as paragraphs: (text, is a list of errors)."""
    rows = [re.sub(r"^\s*// ?", "", row) for row in block.strip().split("\n")]
    out, text, errors = [], [], []

    def flush():
        if text:
            out.append(" ".join(text))
            text.clear()

    for row in rows:
        error = re.match(r"  (-E[A-Z]+(?:, -E[A-Z]+)*)  +(.*)", row)
        if error:
            errors.append([error[1], error[2]])
        elif errors and row.startswith("   "):
            errors[-1][1] += " " + row.strip()
        elif row.strip():
            text.append(row.strip())
        else:
            flush()
    flush()
    return out, errors


def read(path):
    with open(path, encoding="utf-8") as file:
        source = file.read()
    head = re.search(r"\A// SPDX.*\n//\n((?://.*\n)+)", source)[1]
    types, functions = [], []
    for block, rest in re.findall(r"((?:^//.*\n)*)^((?:enum|struct)\b[^;{]*(?:\{[^}]*\})?;)", source, re.M):
        types.append((uncomment(block)[0] if block else [], rest))
    for block, declaration, name in re.findall(
            r"((?:^//.*\n)+)^FL_CLIENT_API (\w[^;]*?\b(fl_\w+)\([^;]*\);)", source, re.M):
        functions.append({"name": name, "declaration": declaration, "about": uncomment(block)})
    return uncomment(head)[0], types, functions
