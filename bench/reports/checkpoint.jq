# SPDX-License-Identifier: Apache-2.0
#
# The tables of bench/run checkpoint. With fewer than 100 pauses the p99 is the longest one. `Diff` is one request,
# without a client's time; `client` is what a client of the API sees, a request for each step; `none` is that
# client's pause without a snapshot.
include "lib";

def ms: . / 1e6;
def of($how): [.[] | select(.how == $how)];
def size: if . >= 1073741824 then "\(. / 1073741824) GiB" else "\(mib) MiB" end;
def pages: if . == 4096 then "4 KiB" else "2 MiB" end;

# The pause of each round to that of the other way in the same round.
def to($other): . as $all | [of("checkpoint")[] | . as $one
    | ($all[] | select(.how == $other and .round == $one.round) | .ns) | $one.ns / .] | median;
def p99: sort | if length == 0 then null else .[(length * 0.99 | ceil) - 1] end;
def copy_rate: [of("checkpoint")[].checkpoint | select(.copy_ms > 0)
    | (.copied_by_fault + .copied_by_sweep) * 4096 / 1048576 / (.copy_ms / 1000)] | median;

def pause_row:
    . as $all | of("checkpoint") as $ours
    | ["\($all[0].memory | size)", ($all[0].page_size | pages), "\($all[0].rate)", "\($ours | length)",
       ([$ours[].ns | ms] | median | digits(2)), ([$ours[].ns | ms] | p99 | digits(2)),
       ([$ours[].checkpoint.freeze_ms] | median | digits(2)), ([of("nothing")[].ns | ms] | median | digits(2)),
       ([of("diff")[].ns | ms] | median | digits(1)), ([of("client")[].ns | ms] | median | digits(1)),
       ([of("diff")[].dumped] | median | digits(0)), ([of("full")[].ns | ms] | median | digits(1)),
       (to("diff") | digits(2)), (to("client") | digits(2)), (copy_rate | digits(0))] | row;
def pause_table:
    "\n### Pauses of a VM\n",
    "| size | pages | writes/s | n | ms | p99 | freeze | none | Diff | client | dirty | Full | to Diff | to client | MiB/s |",
    "| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    (unordered_keys([.page_size, .memory, .rate])[] as $key
        | [.[] | select([.page_size, .memory, .rate] == $key)] | pause_row);

def slower(f): [.[] | select(f) | 100 - 100 * f / .before] | median;
def slowdown_table:
    "\n### A guest that computes\n",
    "Slower by so many percent: in the whole checkpoint, while pages were copied, while the rest was packed; and in a second",
    "in which, without a checkpoint, something spins on each CPU at nice 10, as the packing may.\n",
    "| pages | runs | writes/s | meanwhile | slower by % | copying | packing | spinning | s | MiB/s | copied | by a write |",
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    (unordered_keys(.page_size)[] as $size | [.[] | select(.page_size == $size)]
        | [($size | pages), "\(length)", ([.[].before] | median | digits(0)), ([.[].during] | median | digits(0)),
           ([.[] | 100 - 100 * .during / .before] | median | digits(1)), (slower(.copying) | digits(1)),
           (slower(.packing) | digits(1)), (slower(.beside_spinning) | digits(1)),
           ([.[].checkpoint.seconds] | median | digits(2)),
           ([.[].checkpoint | (.copied_by_fault + .copied_by_sweep) * 4096 / 1048576 / (.copy_ms / 1000)] | median | digits(0)),
           ([.[].checkpoint | .copied_by_fault + .copied_by_sweep] | median | digits(0)),
           ([.[].checkpoint.copied_by_fault] | median | digits(0))] | row);

def neighbours_table:
    . as $all | "\n### Neighbours\n",
    "| the other VM | rounds | k pages/s | p50 us | p99 us | p99 to alone |",
    "| --- | --: | --: | --: | --: | --: |",
    (("alone", "captured") as $how | of($how)
        | [(if $how == "alone" then "runs" else "is captured all the time" end), "\(length)",
           ([.[].touches_per_s] | median / 1000 | digits(1)), ([.[].latency_us.p50] | median | digits(1)),
           ([.[].latency_us.p99] | median | digits(1)),
           ([.[] | . as $one | ($all[] | select(.how == "alone" and .round == $one.round) | .latency_us.p99)
               | $one.latency_us.p99 / .] | median | digits(2))] | row);

def chain_row($first):
    [([.[].checkpoint.bytes] | median), ([.[] | .command_s + .server_s] | median)] as [$bytes, $cpu]
    | ["\(.[0].number)", "\(length)", ([.[].checkpoint | .copied_by_sweep + .copied_by_fault] | median | digits(0)),
       ([.[].checkpoint.stored_pages] | median | digits(0)), ($bytes | mib | digits(2)), ($bytes / $first[0] * 100 | digits(1)),
       ([.[].command_s] | median | digits(2)), ([.[].server_s] | median | digits(2)), ($cpu / $first[1] * 100 | digits(1)),
       ([.[].checkpoint.seconds] | median | digits(2)), ([.[].checkpoint.pause_ms] | median | digits(1)),
       ([.[].checkpoint.settle_seconds * 1000] | median | digits(1))] | row;
def chain_table:
    . as $all | "\n### A chain\n",
    "| which | runs | copied | stored | MiB | % of first | command s | server s | % of first | s | pause ms | image ms |",
    "| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ([.[] | select(.number == 1)] | [([.[].checkpoint.bytes] | median), ([.[] | .command_s + .server_s] | median)]) as $first
    | $all | (1, 2, 10) as $number | [$all[] | select(.number == $number)] | select(length > 0) | chain_row($first);

# "Frames" are those that a range of 2 MiB refers to. The price of unpacking is that of the first image, 1.
def layout_row($all):
    . as $one | [$all[] | select(.how == $one.how and .unpacked == $one.number) | .cpu_s] as $cpu
    | [$all[] | select(.how == $one.how and .unpacked == 1) | .cpu_s] as $first
    | ["\(.how)", "\(.number)", "\(.stored_pages)", "\(.declined_pages)", (.bytes | mib | digits(2)), (.cpu_s | digits(3)),
       (.settle_ms | digits(1)), (.range_frames | digits(1)), "\(.range_frames_max)", "\(.frame_pages)",
       (if $cpu == [] then "" else ($cpu | median | digits(3)) end),
       (if $cpu == [] then "" else ($cpu | median) / ($first | median) | digits(2) end)] | row;
def layout_table:
    . as $all | "\n### A long chain, of the store alone\n",
    "| pages | image | stored | again | MiB | CPU s | image ms | frames | most | pages in frames | unpack CPU s | to first |",
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ($all[] | select(.number == (1, 2, 10, 25, 50)) | layout_row($all));

def live_row:
    {finished: "when it is finished", offered: "while it is packed", moved: "at another server, left paused"} as $names
    | [(.[0].memory | size), $names[.[0].how], "\(length)", ([.[].first_us / 1000] | median | digits(1)),
       ([.[].first_us / 1000] | max | digits(1)), ([.[].pause_us / 1000] | median | digits(1)),
       ([.[].pause_us / 1000] | max | digits(1)), ([.[].all_us / 1000] | median | digits(1)),
       ([.[].published_us / 1000] | median | digits(1))] | row;
def live_table:
    "\n### The first page of another VM\n",
    "| memory | restored | runs | ms from the order | worst | ms from the pause | worst | next 99 pages ms | published ms |",
    "| --- | --- | --: | --: | --: | --: | --: | --: | --: |",
    (unordered_keys([.memory, .how])[] as $key | [.[] | select([.memory, .how] == $key)] | live_row);

"Faultline \(.version | ltrimstr("faultline ")), \(.cpus) vCPU virtual machine, \(.memory_gib) GiB, Linux \(.linux), \(.date)",
(.records as $records
 | ([$records[] | select(.part == "pause")] | select(length > 0) | pause_table),
   ([$records[] | select(.part == "slowdown")] | select(length > 0) | slowdown_table),
   ([$records[] | select(.part == "neighbours")] | select(length > 0) | neighbours_table),
   ([$records[] | select(.part == "chain")] | select(length > 0) | chain_table),
   ([$records[] | select(.part == "layout")] | select(length > 0) | layout_table),
   ([$records[] | select(.part == "live")] | select(length > 0) | live_table))
