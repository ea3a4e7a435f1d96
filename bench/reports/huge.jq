# SPDX-License-Identifier: Apache-2.0
include "lib";

# To the one of that name in the same round.
def to($all; $name; value):
    [.[] | . as $one | $all[] | select(.what == $one.what and .round == $one.round and .name == $name)
        | ($one | value) / value] | median;

def write_rows:
    [.[] | select(.what == "writes")] as $all | $all | unordered_keys(.name)[] as $name
    | [$all[] | select(.name == $name)]
    | [$name, "\(length)", ([.[].us] | median | digits(1)), (to($all; "never"; .us) | digits(2)),
       ([.[].ahead] | median | digits(0))] | row;

def read_rows:
    [.[] | select(.what == "reads")] as $all | $all | unordered_keys(.name)[] as $name
    | [$all[] | select(.name == $name)]
    | [$name, "\(length)", ([.[].ns] | median | digits(1)), (to($all; "4 KiB"; .ns) | digits(2)),
       (if any($all[]; .name == "a pool\u0027s") then (to($all; "a pool\u0027s"; .ns) | digits(2)) else "-" end),
       (if $name == "put together" then ([.[] | .huge_bytes / .bytes * 100] | median | digits(0)),
            ([.[].huge_ms] | median | digits(0)) else "-", "-" end)] | row;

def huge_table:
    "\n### Huge pages without a pool\n",
    "\(.[0].bytes | mib) MiB\n",
    "| THP, first write in an empty 2 MiB | runs | us | to never | pages put there ahead |",
    "| --- | --: | --: | --: | --: |",
    write_rows,
    "\n| pages, reads all over | runs | ns a read | to 4 KiB | to the pool | % on 2 MiB | ms to 95 % |",
    "| --- | --: | --: | --: | --: | --: | --: |",
    read_rows;
