# SPDX-License-Identifier: Apache-2.0
include "lib";

def files_state: {cold: "nothing in memory", first: "frames in the server's cache", later: "used before",
                  written: "as it was written"};
def files_how: {raw: "raw file, ext4", file: "IMAGE.mem", "file-replay-on": "IMAGE.mem", userfaultfd: "userfaultfd, replay",
                "file-replay-off": "IMAGE.mem, `--replay off`"};
def files_set: {spread: "the set", all: "all"};

# To the raw file that was used before, in the same round, with as many VMs and the same set.
def to_raw($all):
    [.[] | . as $one | ($all[] | select(.server == "raw" and .state == "later" and .round == $one.round
        and .clones == $one.clones and .set == $one.set)) | $one.wall_ms / .wall_ms] | median;

def files_row($all):
    [files_set[.[0].set], "\(.[0].clones)", files_how[.[0].server], files_state[.[0].state], "\(length)",
     ([.[].wall_ms] | median | digits(1)), (to_raw($all) | digits(2)), ([.[].faults] | median | digits(0))] | row;

def files_table:
    [.[] | select(.state != "memory" and .state != "cache")] as $all
    | [.[] | select(.state == "memory")] as $memory | [.[] | select(.state == "cache")] as $cache
    | "\n### Images as files\n",
    "| touched | VMs | how | state | runs | ms until the last has all | to the raw file, used before | faults of a VM |",
    "| --- | --: | --- | --- | --: | --: | --: | --: |",
    ($all | unordered_keys([.set, .clones])[] as $vms | [$all[] | select([.set, .clones] == $vms)] as $here
        | $here | unordered_keys([.server, .state])[] as $key
        | [$here[] | select([.server, .state] == $key)] | files_row($all)),
    ($memory | select(length > 0)
        | "\n\(.[0].clones) VMs of an image of \(.[0].bytes | mib | digits(0)) MiB, of which each touches "
        + "\(.[0].touched | mib | digits(0)) MiB and writes to \(.[0].written_percent) %: "
        + "\([$cache[].bytes] | median | mib | digits(0)) MiB of page cache, once, and "
        + "\([.[] | .anonymous / .clones] | median | mib | digits(1)) MiB of their own each, beside "
        + "\([.[] | .page_tables / .clones] | median | mib | digits(1)) MiB of page tables.");
