# SPDX-License-Identifier: Apache-2.0
include "lib";

def fresh_names: names + {kernel: "the kernel alone"};
def fresh_what: {up: "all pages, upwards", down: "all pages, downwards",
                 blocks: "blocks of 2 MiB in no order, each downwards",
                 "blocks-removed": "the same, all of it given back before", sparse: "one page in 64, in no order"};

def fresh_row($all):
    ([.[].seconds] | median) as $seconds
    | ([$all[] | select(.server == "kernel") | .seconds] | median) as $kernel
    | [fresh_what[.[0].scenario], fresh_names[.[0].server], "\(length)", "\(.[0].pages)",
       ($seconds * 1000 | digits(0)), ($seconds / $kernel | digits(2)),
       (if .[0].faults == 0 then "-" else "\([.[].faults] | median)" end),
       (if .[0].faults == 0 then "-" else "\([.[] | .ahead - .used] | median * 4) KiB" end)] | row;

def fresh_table:
    . as $all | "\n### Fresh work\n",
    "| what is written to | server | runs | pages | ms | to the kernel alone | faults | ahead, not known to be of use |",
    "| --- | --- | --: | --: | --: | --: | --: | --: |",
    (unordered_keys(.scenario)[] as $scenario | [$all[] | select(.scenario == $scenario)] as $here
        | $here | unordered_keys(.server)[] as $server
        | [$here[] | select(.server == $server)] | fresh_row($here));

def populate_row($all):
    [(if .[0].server == "bulk" then "one UFFDIO_COPY" else names[.[0].server] + " --populate" end), .[0].vm, "\(length)",
     (.[0].bytes | mib | digits(0)), ([.[].seconds] | median * 1000 | digits(0)),
     (ratio("seconds"; $all; "bulk") | digits(2))] | row;

def populate_table:
    . as $all | "\n### Populate\n",
    "| how | VM of the server | runs | MiB | ms | to one copy |",
    "| --- | --- | --: | --: | --: | --: |",
    (unordered_keys([.server, .vm])[] as $key | [$all[] | select([.server, .vm] == $key)] | populate_row($all));
