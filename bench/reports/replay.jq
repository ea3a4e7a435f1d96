# SPDX-License-Identifier: Apache-2.0
include "lib";

def rate: .bytes / .seconds / 1048576;
def disk_rate: if .disk_bytes == null then null else .disk_bytes / .seconds / 1048576 end;

def ceiling_name: if .how == "fio" then "fio, 1 MiB reads past the page cache"
    else "bulk copy, \(.page_size / 1024) KiB pages, calls of \(.chunk / 1024) KiB" end;
def ceiling_rows:
    [.[] | select(.how != "replay")] as $ceilings | $ceilings | unordered_keys(ceiling_name)[] as $name
    | [$ceilings[] | select(ceiling_name == $name)]
    | [$name, "\(length)", (.[0].bytes | mib | digits(0)), ([.[] | rate] | median | digits(0)), "-", "-", "-", "-"] | row;

# To the fastest bulk copy of the same round, in pages of the same size.
def to_bulk($all):
    [.[] | . as $one | [$all[] | select(.how == "bulk" and .round == $one.round and .page_size == $one.page_size) | rate]
        | select(length > 0) | ($one | rate) / max] | median;
def to_fio($all; of):
    [.[] | . as $one | ($all[] | select(.how == "fio" and .round == $one.round) | rate) as $fio
        | ($one | of) | select(. != null) | . / $fio] | median;

def replay_rows:
    . as $all | [.[] | select(.how == "replay")] as $replays
    | $replays | unordered_keys([.image, .state, .page_size])[] as $key
    | [$replays[] | select([.image, .state, .page_size] == $key)]
    | ["replay, \($key[0]), \($key[1]), \($key[2] / 1024) KiB pages", "\(length)", (.[0].bytes | mib | digits(0)),
       ([.[] | rate] | median | digits(0)), (to_bulk($all) | digits(2)),
       (if $key[1] == "cold" then ([.[] | disk_rate | select(. != null)] | median | digits(0)),
            (to_fio($all; disk_rate) | digits(2)), (to_fio($all; rate) | digits(2)) else "-", "-", "-" end)] | row;

def replay_table:
    "\n### Replay\n",
    "| what | runs | MiB | MiB/s | to bulk copy | read from disk, MiB/s | this to fio | MiB/s to fio |",
    "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ceiling_rows, replay_rows;
