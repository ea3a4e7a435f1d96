# SPDX-License-Identifier: Apache-2.0
include "lib";

def sort_recorded: sort_by({replay: 0, lazy: 1, example: 2, bare: 3, spin: 4, cache: 5}[.server]);

def recorded_row($all):
    [names[.[0].server], runs,
     ([.[].whole_set_ms.median] | median | digits(1)), ([.[].whole_set_ms.max] | median | digits(1)),
     (less(.whole_set_ms.median; $all; "lazy") | digits(2)),
     ([.[] | .faults / .vms] | median | digits(1)),
     (less(.faults + 1; $all; "lazy") | digits(1)),
     ([.[].stall_ms.median] | median | digits(1)),
     ([.[].latency_us.p50] | median | digits(1)), ([.[].latency_us.p99] | median | digits(1)),
     ([.[].server_cpu_us_per_touch] | median | digits(1))] | row;

def how_names: {warm: "everything in memory", cold: "a fresh server, nothing in the page cache",
    paced: "everything in memory, no touch before its recorded time"};

def recorded_table:
    sort_recorded as $all
    | "\n### Recorded: \($all[0].snapshot), \($all[0].vms) VM, \($all[0].how)\n",
    "\($all[0].touches / $all[0].vms | round) touches of each VM, memory of \($all[0].memory | mib) MiB; \(how_names[$all[0].how])\n",
    "| from | runs | set ms: median | last | lazy : this | faults | lazy : this | waited ms | p50 us | p99 us | CPU us |",
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ($all | unordered_keys(.server)[] as $server | [$all[] | select(.server == $server)] | recorded_row($all));
