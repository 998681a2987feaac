%% SPDX-License-Identifier: Apache-2.0
%% bench_local.erl - the peer of bench_local.c on Erlang: the same exchanges, counted the same way, on one scheduler.
%% Prints lines "NAME VALUE"; run by bench_local with: erl +S 1:1 -noshell -s bench_local main
-module(bench_local).
-export([main/0]).

-define(WINDOW, 512).
-define(RUNS, 3).

main() ->
    report(local_one_to_one, fun() -> one_to_one(4000000) end),
    report(local_ping_pong, fun() -> ping_pong(1000000) end),
    report(local_fan_in, fun() -> fan_in(1000, 2000) end),
    report(local_spawn, fun() -> spawn_many(100000) end),
    io:format("local_idle_bytes ~p~n", [idle_bytes(20000)]),
    halt(0).

report(Name, Fun) ->
    Values = lists:sort([rate(Fun) || _ <- lists:seq(1, ?RUNS)]),
    io:format("~s ~p~n", [Name, round(lists:nth((?RUNS + 1) div 2, Values))]).

rate(Fun) ->
    Start = erlang:monotonic_time(nanosecond),
    N = Fun(),
    N * 1.0e9 / (erlang:monotonic_time(nanosecond) - Start).

%% A sink acknowledges each full window; a source keeps two windows on their way.
one_to_one(N) ->
    Self = self(),
    Sink = spawn(fun() -> sink(N, 0, Self) end),
    spawn(fun() -> send(Sink, ?WINDOW), send(Sink, ?WINDOW), source(Sink, ?WINDOW) end),
    receive done -> N end.

source(Sink, Window) ->
    receive ack -> send(Sink, Window), source(Sink, Window);
            stop -> ok
    end.

send(_, 0) -> ok;
send(Sink, N) -> Sink ! {ping, N, self()}, send(Sink, N - 1).

sink(0, _, Main) -> Main ! done;
sink(N, Seen, Main) ->
    receive
        {ping, _, From} when Seen + 1 =:= ?WINDOW -> From ! ack, sink(N - 1, 0, Main);
        {ping, _, _} -> sink(N - 1, Seen + 1, Main)
    end.

ping_pong(N) ->
    Self = self(),
    Ponger = spawn(fun ponger/0),
    spawn(fun() -> pinger(Ponger, N), Self ! done end),
    receive done -> exit(Ponger, kill), 2 * N end.

pinger(_, 0) -> ok;
pinger(Ponger, N) -> Ponger ! {ping, N, self()}, receive {pong, N} -> pinger(Ponger, N - 1) end.

ponger() -> receive {ping, N, From} -> From ! {pong, N}, ponger() end.

fan_in(Senders, Each) ->
    Self = self(),
    Sink = spawn(fun() -> fan_sink(Senders * Each, Self) end),
    Pids = [spawn(fun() -> send(Sink, 10), source(Sink, 10) end) || _ <- lists:seq(1, Senders)],
    receive done -> [exit(P, kill) || P <- Pids], Senders * Each end.

fan_sink(0, Main) -> Main ! done;
fan_sink(N, Main) ->
    receive
        {ping, 1, From} -> From ! ack, fan_sink(N - 1, Main);
        {ping, _, _} -> fan_sink(N - 1, Main)
    end.

spawn_many(N) ->
    Pids = [spawn(fun idle/0) || _ <- lists:seq(1, N)],
    lists:foreach(fun(P) -> P ! {ready, self()} end, Pids),
    lists:foreach(fun(_) -> receive ready -> ok end end, Pids),
    [exit(P, kill) || P <- Pids],
    N.

idle() -> receive {ready, From} -> From ! ready, idle() end.

idle_bytes(N) ->
    Before = erlang:memory(total),
    Pids = [spawn(fun idle/0) || _ <- lists:seq(1, N)],
    Bytes = (erlang:memory(total) - Before) div N,
    [exit(P, kill) || P <- Pids],
    Bytes.
