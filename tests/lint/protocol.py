#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Hold docs/protocol.md and tests/lint/protocol.lock against the lists that the code is made of.

    protocol.py check     fail when a table in the doc, or the lock, is not what the lists say
    protocol.py update    rewrite both

In the doc a table stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.  The lock is the released protocol, one
line a thing: a change of an existing line breaks clients that are out there, and update refuses it unless --break is given.
"""
import os
import re
import sys

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
INCLUDE = os.path.join(ROOT, "include", "orrery")
DOC = os.path.join(ROOT, "docs", "protocol.md")
LOCK = os.path.join(ROOT, "tests", "lint", "protocol.lock")
FIX = "run: tests/lint/protocol.py update"

LINE = re.compile(
    r"^\s*(REC_BEGIN|REC_END|MSG_BEGIN|MSG_END|FIELD|RECORD|LIST)\s*\(([^)]*)\)\s*(?:/\*\s*(.*?)\s*\*/)?\s*$")
SECTION = re.compile(r"^/\* -{4} (.*?) -{4,} \*/$")


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def parse_messages():
    """[(section, [record or message])], each with its fields, in the order of the list."""
    sections, current = [], None
    body = re.sub(r"^/\*.*?\*/", "", read(os.path.join(INCLUDE, "messages.def")), count=1, flags=re.S)
    body = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"\s*\n\s*\*?\s*", " ", m.group(0)), body, flags=re.S)
    for line in body.splitlines():
        section, match = SECTION.match(line), LINE.match(line)
        if section:
            sections.append((section.group(1), []))
        elif match:
            kind, args, note = match.group(1), [a.strip() for a in match.group(2).split(",")], match.group(3) or ""
            if kind == "REC_BEGIN":
                current = {"record": True, "name": args[0], "note": note, "fields": []}
                sections[-1][1].append(current)
            elif kind == "MSG_BEGIN":
                current = {"record": False, "id": args[0], "name": args[1], "version": args[2], "lane": args[3],
                           "reply": args[4], "note": note, "fields": []}
                sections[-1][1].append(current)
            elif kind in ("FIELD", "RECORD", "LIST"):
                type_ = {"FIELD": args[0], "RECORD": "record " + args[0], "LIST": "list of " + args[0]}[kind]
                current["fields"].append((type_, args[1], int(args[2]), note))
        elif line.strip():
            sys.exit(f"messages.def: not understood: {line!r}; one macro a line, and its comment behind it")
    return sections


def parse_errors():
    return re.findall(r'^ORR_ERROR\((\d+), (\w+), "(.*)"\)$', read(os.path.join(INCLUDE, "errors.def")), flags=re.M)


def parse_numbers():
    """{list: [(number, name)]} of the enumerations that messages carry."""
    text = read(os.path.join(INCLUDE, "ids.h"))
    lists = {}
    for title, macro in (("job phase", "ORR_JOB_PHASES"), ("order state", "ORR_ORDER_STATES"), ("clock op", "ORR_CLOCK_OPS")):
        rows = re.search(r"#define %s\(X\)((?:.*\\\n)*.*)" % macro, text).group(1)
        lists[title] = re.findall(r'X\((\d+), \w+, "(\w+)"\)', rows)
    for title, enum, prefix in (("role", "orr_role", "ORR_ROLE_"), ("outcome", "orr_job_outcome", "ORR_OUTCOME_"),
                                ("rank state", "orr_rank_state", "ORR_RANK_"),
                                ("node state", "orr_node_state", "ORR_NODE_"), ("tier", "orr_tier", "ORR_TIER_"),
                                ("spread", "orr_spread", "ORR_SPREAD_"), ("reduce", "orr_reduce", "ORR_REDUCE_"),
                                ("checkpoint mode", "orr_checkpoint_mode", "ORR_CHECKPOINT_"), ("level", "orr_level", "ORR_LEVEL_"),
                                ("order", "orr_order", "ORR_ORDER_"), ("cut step", "orr_cut_step", "ORR_CUT_"),
                                ("clock kind", "orr_clock_kind", "ORR_CLOCK_"), ("pause", "orr_pause", "ORR_PAUSE_"),
                                ("step state", "orr_step_state", "ORR_STEP_")):
        body = re.search(r"enum %s \{(.*?)\}" % enum, text, flags=re.S).group(1)
        body = re.sub(r"/\*.*?\*/", "", body, flags=re.S)
        names, number = [], 0
        for item in filter(None, (i.strip() for i in body.split(","))):
            name, _, value = (p.strip() for p in item.partition("="))
            number = int(value) if value else number
            if not name.endswith("_MAX_"):
                names.append((str(number), name[len(prefix):].lower()))
            number += 1
        lists[title] = names
    return lists


def cell(text):
    """A comment of the list, in the words of the page."""
    text = text.replace("enum orr_envelope_flag", "1: this is an answer").replace("enum orr_err", "an error code")
    text = re.sub(r"enum orr_(?:job_(?=outcome))?(\w+)", lambda m: "a number: " + m.group(1).replace("_", " "), text)
    return text.replace("|", "\\|").replace("ORR_NO_DEVICE", "4294967295").replace("ORR_TAIL_MAX", "2,048")


def table_fields(item):
    rows = ["| | field | type | |", "|---|---|---|---|"]
    for at, (type_, name, since, note) in enumerate(item["fields"]):
        note += f" (since {since})" if since > 1 else ""
        rows.append(f"| {at} | `{name}` | {type_} | {cell(note)} |")
    return rows if item["fields"] else ["No fields: an empty array."]


def table_messages(sections):
    out = []
    for title, items in sections:
        out += [f"### {title[0].upper()}{title[1:]}", ""]
        for item in items:
            if item["record"]:
                head = f"**record `{item['name']}`**"
            else:
                answer = "" if item["reply"] == "none" else f", answered by `{item['reply']}`"
                head = f"**`{item['id']}` `{item['name']}`** version {item['version']}, {item['lane'].lower()} lane{answer}"
            out += [head + (f": {cell(item['note'])}" if item["note"] else ""), ""] + table_fields(item) + [""]
    return "\n".join(out).rstrip()


def table_errors():
    return "\n".join(["| code | name | meaning |", "|---|---|---|"] +
                     [f"| {n} | {name} | {text} |" for n, name, text in parse_errors()])


def table_numbers():
    rows = ["| what | numbers |", "|---|---|"]
    for title, names in parse_numbers().items():
        rows.append(f"| {title} | " + ", ".join(f"{n} {name}" for n, name in names) + " |")
    return "\n".join(rows)


def lock_text(sections):
    out = []
    for _, items in sections:
        for item in items:
            head = (f"record {item['name']}" if item["record"] else
                    f"{item['id']} {item['name']} {item['lane']} -> {item['reply']}")
            out.append(head)
            out += [f"{head}: {at} {type_} {name} since {since}"
                    for at, (type_, name, since, _) in enumerate(item["fields"])]
    out += [f"error {n} {name}" for n, name, _ in parse_errors()]
    for title, names in parse_numbers().items():
        out += [f"{title} {n} {name}" for n, name in names]
    return "\n".join(out) + "\n"


def fill(doc, tables):
    for name, table in tables.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        if doc.count(begin) != 1 or doc.count(end) != 1:
            sys.exit(f"docs/protocol.md: needs {begin} and {end}, once each")
        head, rest = doc.split(begin)
        doc = head + begin + "\n" + table + "\n" + end + rest.split(end)[1]
    return doc


def main():
    if len(sys.argv) < 2 or sys.argv[1] not in ("check", "update"):
        sys.exit(__doc__)
    sections = parse_messages()
    doc, lock = read(DOC), lock_text(sections)
    wanted = fill(doc, {"messages": table_messages(sections), "errors": table_errors(), "numbers": table_numbers()})
    old = read(LOCK) if os.path.exists(LOCK) else ""
    broken = [line for line in old.splitlines() if line not in set(lock.splitlines())]
    if broken:
        print("the released protocol changed; append instead (a new field, a new message):")
        print("\n".join("  " + line for line in broken[:20]))
        if "--break" not in sys.argv:
            sys.exit(1)
    if sys.argv[1] == "update":
        for path, text in ((DOC, wanted), (LOCK, lock)):
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
    elif doc != wanted:
        sys.exit("docs/protocol.md is not what messages.def, errors.def and ids.h say; " + FIX)
    elif old != lock:
        sys.exit("tests/lint/protocol.lock lacks something new; " + FIX)


if __name__ == "__main__":
    main()
