# SPDX-License-Identifier: Apache-2.0
#
# The data of the charts, as blocks that gnuplot reads: a line with the title, lines of figures, two empty lines. Input:
# a file of results. $chart: which chart; $part: the records that it shows.
include "lib";

def plain: gsub("`"; "");
def name: names[.] // . | plain;
def block($title; $lines): ["\"\($title)\""] + $lines + ["", ""];

# p50 and p99 by the number of VMs that touch 4 KiB pages at random.
def latency:
    map(select(.page_size == 4096 and .order == "random" and (.scenario | test("^[0-9]+x[0-9]+$")) and .threads <= 2))
    | . as $all
    | [("p50", "p99") as $which | ($all | unordered_keys(.server)[]) as $server
       | block("\($server | name), \($which)";
               [$all | map(select(.server == $server)) | group_by(.vms)[] | undisturbed
                | "\(.[0].vms) \(map(.latency_us[$which]) | median)"])]
    | add[];

# MiB that all clones of an image take together. What they share is counted once.
def memory:
    group_by(.how)
    | [.[] | block({private: "pages of their own", template: "template", file: "file door"}[.[0].how] // .[0].how;
                   [sort_by(.clones)[] | "\(.clones) \(.anonymous + .shared + .page_tables | mib)"])]
    | add[];

# How long until one VM has touched the whole set, in ms: a line for each guest, a column for each server.
def set:
    map(select(.how == "warm" and .vms == 1)) | . as $all
    | ["cache", "replay", "lazy", "spin", "bare", "example"] as $servers
    | (["guest"] + ($servers | map("\"\(name)\"")) | join(" ")),
      ($all | unordered_keys(.snapshot)[]) as $guest
    | [$guest] + [$servers[] as $server
                  | $all | map(select(.snapshot == $guest and .server == $server)) | undisturbed
                  | map(.whole_set_ms.median) | median // "?"]
    | map(tostring) | join(" ");

.records | map(select(.part == $part))
| if $chart == "latency" then latency elif $chart == "memory" then memory else set end
