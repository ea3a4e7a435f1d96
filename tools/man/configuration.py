# SPDX-License-Identifier: Apache-2.0
"""The configuration file that is installed, and the table of its options in docs/configuration.md."""
import textwrap

WHEN = {"engine": "A reload takes a change up.",
        "reload": "A reload takes a change up, an upgrade of the engine alone does not.",
        "restart": "A change waits for a restart."}
SHORT = {"engine": "reload", "reload": "reload", "restart": "restart"}

HEAD = """# The configuration of the Faultline server: see faultline.conf(5).
#
# Each line is NAME = VALUE, where NAME is an option of 'faultline serve' without its dashes. A comment has a line of its
# own. What is set here comes before the default, and after the environment and the command line of the server
# (FAULTLINE_OPTIONS in /etc/default/faultline).
#
# 'faultline config check' says what is wrong here, and 'faultline config show' what holds. 'systemctl reload faultline'
# takes up what was changed, and refuses a file that is wrong; what is marked (restart) waits for a restart.
#
# The values below are the defaults.
"""


def options(serve):
    return [option for option in serve["options"] if option["in_file"]]


def default(option):
    """The value without the option, and whether it can be written down as a value."""
    if not option["value"]:
        return "off", True
    if option["default"] is not None:
        return option["default"], True
    return option["otherwise"] or "none", False


def file(serve):
    rows = [HEAD]
    for option in options(serve):
        text = option["help"][0].upper() + option["help"][1:] + "."
        value, written = default(option)
        if not written:
            text += f" Without it: {value}."
        if option["changed_at"] == "restart":
            text += " (restart)"
        rows += textwrap.wrap(text, 100, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        rows.append(f"#{option['name']} = {value if written else option['value']}\n")
    return "\n".join(rows)


def table(serve):
    rows = ["| option | default | a change |", "| --- | --- | --- |"]
    for option in options(serve):
        value, written = default(option)
        value = f"`{value}`" if written else value
        rows.append(f"| `{option['name']}` | {value} | {SHORT[option['changed_at']]} |")
    return rows
