# SPDX-License-Identifier: Apache-2.0
#
# Makes the tables of docs/benchmarks.md from the raw records of bench/run. lib.jq says what a figure is.

include "lib";
include "replay";
include "recorded";
include "cost";
include "fills";
include "files";
include "huge";

def faults_row($all):
    [names[.[0].server], runs,
     ([.[].touches_per_s] | median / 1000 | digits(1)),
     ([.[].touches_per_s] | median * $all[0].page_size / 1e9 | digits(2)),
     (ratio("touches_per_s"; $all; "bare") | digits(2)),
     (ratio("touches_per_s"; $all; "spin") | digits(2)),
     ([.[].latency_us.p50] | median | digits(1)),
     ([.[].latency_us.p99] | median | digits(1)),
     ([.[].latency_us["p99.9"]] | median | digits(0)),
     ([.[].server_cpu_us_per_touch] | median | digits(1)),
     ([.[] | .faults / .touches] | median | digits(2))] | row;

# This build to the one before, round by round.
def before_line:
    . as $all | [$all[] | select(.server == "serve")]
    | select(any($all[]; .server == "before"))
    | "\nThis build to the one before: touches a second \(ratio("touches_per_s"; $all; "before") | digits(2)), "
        + "CPU a touch \(ratio("server_cpu_us_per_touch"; $all; "before") | digits(2)).";

# The same to the handler that serves one VM until it has nothing more.
def drain_line:
    . as $all | [$all[] | select(.server == "serve")]
    | select(any($all[]; .server == "drain"))
    | "\nThis build to the handler that drains one VM: touches a second \(ratio("touches_per_s"; $all; "drain") | digits(2)), "
        + "CPU a touch \(ratio("server_cpu_us_per_touch"; $all; "drain") | digits(2)).";

def faults_table:
    . as $all | "\n### \($all[0].scenario)\n",
    "\($all[0].vms) VM x \($all[0].threads) threads, \($all[0].memory | mib) MiB each, "
        + "\($all[0].page_size / 1024) KiB pages, \($all[0].order) order\n",
    "| server | runs | k pages/s | GB/s | to bare | to spinning | p50 us | p99 us | p99.9 us | CPU us/page | faults/page |",
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    (unordered_keys(.server)[] as $server | [$all[] | select(.server == $server)] | faults_row($all)),
    before_line, drain_line;

# Throughput of one scenario to another's, of one server.
def throughput($all; $server): [$all[] | select(.server == $server)] | undisturbed
    | [.[].touches_per_s] | median;
def many_to_few:
    [.[] | select(.scenario == "500x1")] as $many | [.[] | select(.scenario == "32x2")] as $few
    | select(($many | length) > 0 and ($few | length) > 0)
    | "\nThe throughput of 500x1, as a ratio to that of 32x2: " + ([$many | unordered_keys(.server)[] as $server
        | "\(names[$server]) \(throughput($many; $server) / throughput($few; $server) | digits(2))"] | join(", ")) + ".";

def sort_servers: sort_by({serve: 0, before: 0.5, handler: 1, bare: 2, spin: 3, drain: 4, example: 5}[.server]);

def memory_table:
    "\n### Memory of the server\n",
    "| server | VMs | pages touched in each | RSS MiB | PSS MiB | anonymous MiB | allocated MiB |",
    "| --- | --: | --: | --: | --: | --: | --: |",
    (.[] | [names[.server], "\(.vms)", "\(.touched)", (.rss | mib | digits(1)), (.pss | mib | digits(1)),
            (.anonymous | mib | digits(1)), (.allocated | mib | digits(1))] | row);

def clones_row:
    [.how, "\(.clones)", (.first_us | digits(2)), (.others_us | digits(2)), "\(.faults)",
     (.anonymous | mib | digits(1)), (if .how == "template" then .template else 0 end | mib | digits(1)),
     (.page_tables | mib | digits(1)),
     ((.anonymous + .page_tables + (if .how == "template" then .template else 0 end)) | mib | digits(1))] | row;

def clones_table:
    "\n### Clones of one image\n",
    "Each reads all of \(.[0].bytes | mib | digits(0)) MiB, then writes to \(.[0].dirty_percent) % of its pages. The template of the first row is empty.\n",
    "| pages | VMs | first: us/page | others: us/page | userfaults | own MiB | template MiB | page tables MiB | all MiB |",
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    (sort_by(.how != "template", .clones)[] | clones_row);

def store_table:
    . as $all | "\n### Packing\n",
    "Input: \($all[0].input), \($all[0].bytes | mib | digits(0)) MiB\n",
    "| how | seconds | GB/s of input | size MiB | part of the input |",
    "| --- | --: | --: | --: | --: |",
    (unordered_keys(.how)[] as $how | [$all[] | select(.how == $how)]
        | ([.[].seconds] | median) as $seconds
        | [$how, ($seconds | digits(2)), (.[0].bytes / $seconds / 1e9 | digits(2)),
           (.[0].stored | mib | digits(1)), (.[0].stored / .[0].bytes | digits(3))] | row);

def cold_names: {faultline: "read-ahead, verified and decompressed", "fio-direct": "`fio`, direct, 16 at once",
                 "fio-buffered": "`fio`, buffered"};
def gb_per_s: .stored / .seconds / 1e9;
def cold_ratio($all; $to):
    [.[] | . as $one | ($all[] | select(.how == $to and .round == $one.round)) | ($one | gb_per_s) / gb_per_s] | median;

def cold_table:
    . as $all | "\n### Read-ahead from a cold disk\n",
    ([$all[] | select(.how == "faultline")][0]
        | "\(.frames) frames, \(.stored | mib | digits(0)) MiB stored, \(.bytes | mib | digits(0)) MiB of memory; by \(.io)\n"),
    "| how | runs | GB/s from disk | GB/s into memory | to fio direct | to fio buffered |",
    "| --- | --: | --: | --: | --: | --: |",
    (unordered_keys(.how)[] as $how | [$all[] | select(.how == $how)]
        | [cold_names[$how], "\(length)", ([.[] | gb_per_s] | median | digits(2)),
           ([.[] | select(.bytes) | .bytes / .seconds / 1e9] | median | digits(2)),
           (cold_ratio($all; "fio-direct") | digits(2)), (cold_ratio($all; "fio-buffered") | digits(2))] | row),
    ([$all[] | select((.cached // 0) > 0.01)] | select(length > 0)
        | "\nIn \(length) runs the page cache could not be emptied: they are not cold.");

def kib: . / 1024;
def frames_table:
    . as $all | "\n### Frame sizes\n",
    "Input: \($all[0].input), \(([$all[].bytes] | max) | mib | digits(0)) MiB that are not zero\n",
    "| frame KiB | rounds | stored part | uncached fault: us p50 | us p99 | KiB read | in order GB/s | encode GB/s |",
    "| --: | --: | --: | --: | --: | --: | --: | --: |",
    (unordered_keys(.frame_bytes)[] as $size | [$all[] | select(.frame_bytes == $size)]
        | .[0] as $one
        | ["\($size | kib)", "\(length)", ($one.stored / $one.bytes | digits(3)),
           ([.[].decode_ns_p50] | median / 1000 | digits(1)),
           ([.[].decode_ns_p99] | median / 1000 | digits(1)),
           ($one.stored / $one.bytes * $size | kib | digits(1)),
           ($one.bytes / ([.[].sequential_seconds] | median) / 1e9 | digits(2)),
           ($one.bytes / ([.[].encode_cpu_seconds] | median) / 1e9 | digits(2))] | row);

def codecs_table:
    . as $all | "\n### Codecs\n",
    "Input: \($all[0].input), \($all[0].bytes | mib | digits(0)) MiB of it that are not zero; one thread's processor time\n",
    "| codec | level | frame KiB | stored part | ratio | written MB/s | read MB/s | a frame: us p50 | us p99 |",
    "| --- | --: | --: | --: | --: | --: | --: | --: | --: |",
    (unordered_keys([.codec, .level, .frame_bytes])[] as $way
        | [$all[] | select([.codec, .level, .frame_bytes] == $way)] | .[0] as $one
        | ["`\($one.codec)`", "\($one.level)", "\($one.frame_bytes | kib)", ($one.stored / $one.bytes | digits(3)),
           ($one.bytes / $one.stored | digits(2)), ($one.bytes / $one.encode_cpu_seconds / 1e6 | digits(1)),
           ($one.bytes / ([.[].decode_cpu_seconds] | median) / 1e6 | digits(0)),
           ([.[].decode_ns_p50] | median / 1000 | digits(1)), ([.[].decode_ns_p99] | median / 1000 | digits(1))] | row);

def sum_of_stages: [.[] | select(.stages != null)] | select(length > 0) | . as $all
    | "\nCPU seconds of `faultline pack`, over all threads: " + ([$all[0].stages | keys_unsorted[] as $stage
        | "\($stage) \([$all[].stages[$stage]] | median | digits(2))"] | join(", ")) + ".";

"Faultline \(.version | ltrimstr("faultline ")), \(.cpus) vCPU virtual machine, \(.memory_gib) GiB, Linux \(.linux), \(.date)",
(.records as $records
 | ([$records[] | select(.part == "faults")] | unordered_keys(.scenario)[] as $scenario
    | [.[] | select(.scenario == $scenario)] | undisturbed | sort_servers | faults_table),
   ([$records[] | select(.part == "faults")] | many_to_few),
   ([$records[] | select(.part == "memory")] | select(length > 0) | memory_table),
   ([$records[] | select(.part == "clones")] | select(length > 0) | clones_table),
   ([$records[] | select(.part == "files")] | select(length > 0) | files_table),
   ([$records[] | select(.part == "store")] | unordered_keys(.input)[] as $input
    | [.[] | select(.input == $input)] | store_table, sum_of_stages),
   ([$records[] | select(.part == "cold")] | select(length > 0) | cold_table),
   ([$records[] | select(.part == "frames")] | unordered_keys(.input)[] as $input
    | [.[] | select(.input == $input)] | sort_by(.frame_bytes) | frames_table),
   ([$records[] | select(.part == "codecs")] | unordered_keys(.input)[] as $input
    | [.[] | select(.input == $input)] | sort_by(.codec, .frame_bytes, .level) | codecs_table),
   ([$records[] | select(.part == "replay")] | select(length > 0) | replay_table),
   ([$records[] | select(.part == "recorded")] | unordered_keys([.snapshot, .vms, .how])[] as $scenario
    | [.[] | select([.snapshot, .vms, .how] == $scenario)] | undisturbed | recorded_table),
   ([$records[] | select(.part == "fresh")] | select(length > 0) | fresh_table),
   ([$records[] | select(.part == "populate")] | select(length > 0) | populate_table),
   ([$records[] | select(.part == "huge")] | select(length > 0) | huge_table),
   ([$records[] | select(.part == "cost")] | select(length > 0) | cost_tables))
