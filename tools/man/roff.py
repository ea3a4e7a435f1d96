# SPDX-License-Identifier: Apache-2.0
"""Pieces of a manual page, in the macros of man(7)."""
import os
import re
import subprocess
import textwrap
import time

WIDTH = 76


def escape(text):
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("^", "\\(ha").replace("~", "\\(ti")


def lines(text):
    """Text that is escaped already, as lines that no macro begins."""
    for line in textwrap.wrap(text, WIDTH, break_long_words=False, break_on_hyphens=False):
        yield "\\&" + line if line[0] in ".'" else line


def prose(text):
    """A paragraph of plain text: commands in quotes, options and functions become bold."""
    text = escape(" ".join(text.split()))
    text = re.sub(r"\\\(aq(faultline [^\\]*?(?:\\-[^\\]*?)*)\\\(aq", r"\\fB\1\\fR", text)
    text = re.sub(r"(?<![\w\\])(\\-\\-[a-z](?:[a-z0-9]|\\-(?=[a-z]))*)", r"\\fB\1\\fR", text)
    text = re.sub(r"\b(fl_\w+)\(\)", r"\\fB\1\\fR()", text)
    return list(lines(text))


def title(name, section, version):
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))  # packages must not differ when they are built again
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds))
    return [f'.TH "{name.upper()}" "{section}" "{date}" "Faultline {version}" "Faultline"', ".nh", ".ad l"]


def heading(name):
    return [f".SH {name}"]


def name_section(name, summary):
    return heading("NAME") + [f"{escape(name)} \\- {escape(summary)}"]


def paragraphs(text):
    out = []
    for number, paragraph in enumerate(text.split("\n\n")):
        out += ([".PP"] if number else []) + prose(paragraph)
    return out


def item(label, text):
    """A label, which is roff already, and its text."""
    return [".TP", label] + prose(text)


def literal(text, first=False):
    """Lines as they are; first: a heading stands before them."""
    return ([] if first else [".PP"]) + [".nf"] + ["\\&" + escape(line) for line in text.rstrip("\n").split("\n")] + [".fi"]


def references(pages):
    """"faultline(1)" and the like, each in bold, with commas."""
    out = []
    for number, page in enumerate(pages):
        name, section = page.rstrip(")").split("(")
        out.append(f".BR {escape(name)} ({section})" + ("," if number + 1 < len(pages) else ""))
    return out


def markdown(text):
    """The body that lowdown makes of Markdown. Headings of its second level become sections."""
    text = re.sub(r"^# .*\n", "", text, flags=re.M)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)  # a page has no links
    text = re.sub(r"^##", "#", text, flags=re.M)
    made = subprocess.run(["lowdown", "-s", "-tman"], input=text, capture_output=True, text=True, check=True).stdout
    body = made[made.index("\n", made.index(".TH ")) + 1:]
    body = re.sub(r"^\.if [nt] \\\n\.sp .*\n", "", body, flags=re.M)
    body = re.sub(r"^\.SH\n(.*)\n(\.LP\n)?", lambda m: f".SH {m[1].upper()}\n", body, flags=re.M)
    body = re.sub(r"^\.SS\n(.*)\n(\.LP\n)?", r".SS \1\n", body, flags=re.M)
    body = body.replace("\\fC", "\\f(CR").replace("\\(cq", "\\(aq")
    body = re.sub(r"^\.EX\n", ".nf\n", body, flags=re.M)
    body = re.sub(r"^\.EE\n", ".fi\n", body, flags=re.M)
    body = re.sub(r"^tab\(\|\) expand allbox;\n(.*)\n(.*)\.$", r"tab(|) allbox;\n\1x\n\2x.", body, flags=re.M)
    body = re.sub(r"\A\.[PL]P\n", "", body)  # the heading before has made the space
    return body.rstrip("\n").split("\n")
