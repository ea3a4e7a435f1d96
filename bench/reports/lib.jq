# SPDX-License-Identifier: Apache-2.0
#
# What the tables share. Every figure is a median over rounds. A ratio is the median of the rounds' ratios, so that a
# whole round that is slow does not change it.

def median: sort | if length == 0 then null
    elif length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;
def digits($n): if . == null then "-" else
    (. * pow(10; $n) | round) as $scaled
    | if $n == 0 then "\($scaled)"
      else ("\($scaled)" | until(length > $n; "0" + .)) | .[:-$n] + "." + .[-$n:] end end;
def mib: if . == null then null else . / 1048576 end;
def row: "| " + join(" | ") + " |";
def unordered_keys(f): reduce (.[] | f) as $key ([]; if index([$key]) then . else . + [$key] end);

def names: {serve: "`faultline serve`", before: "the build before", handler: "`faultline handler`",
            bare: "bare, blocks", spin: "bare, spins 50 us", example: "example handler", drain: "drains one VM",
            replay: "`faultline serve`, replay", lazy: "`faultline serve`, no trace",
            cache: "page cache, private mapping"};

# This server's figure to the other server's, in the same round of the same scenario.
def ratio($field; $all; $to):
    [.[] | . as $one | ($all[] | select(.server == $to and .round == $one.round)) | $one[$field] / .[$field]]
    | median;

# Leaves out runs that other programs disturbed, unless a server has only such runs. Then `runs` says so.
def was_disturbed: (.others_cpu_percent // 0) >= 20;
def undisturbed: [group_by(.server)[] | [.[] | select(was_disturbed | not)] as $good
    | if ($good | length) > 0 then $good[] else .[] end];
def runs: "\(length)" + if any(.[]; was_disturbed) then " (disturbed)" else "" end;

# The other way round, where little is good: how many times less this server has than the other.
def less(of; $all; $than):
    [.[] | . as $one | ($all[] | select(.server == $than and .round == $one.round)) | of / ($one | of)]
    | median;
