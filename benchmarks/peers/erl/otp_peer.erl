%% One measurement per emulator: `erl -noshell -run otp_peer main BENCH COUNT` prints one number and ends.
-module(otp_peer).
-behaviour(supervisor).
-export([main/1, init/1]).

main([Bench, Count]) ->
    logger:set_primary_config(level, none),
    io:format("~.3f~n", [float(measure(Bench, list_to_integer(Count)))]),
    erlang:halt(0).

%% Operations per second.
measure("call", N) ->
    Server = server(),
    calls(Server, 20000),
    per_second(N, fun() -> calls(Server, N) end);
measure("cast", N) ->
    Server = server(),
    calls(Server, 20000),
    casts(Server, 20000),
    Before = gen_server:call(Server, read),
    Expected = Before + N,
    per_second(N, fun() ->
        casts(Server, N),
        Expected = gen_server:call(Server, read, infinity)
    end);
%% Bytes per idle supervised server.
measure("idle", N) ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, []),
    erlang:garbage_collect(),
    timer:sleep(100),
    Before = erlang:memory(total),
    [{ok, _} = supervisor:start_child(Supervisor, child(I)) || I <- lists:seq(1, N)],
    erlang:garbage_collect(Supervisor),
    erlang:garbage_collect(),
    timer:sleep(200),
    (erlang:memory(total) - Before) / N.

init([]) -> {ok, {#{strategy => one_for_one, intensity => 3, period => 5}, []}}.

child(Id) -> #{id => Id, start => {otp_server, start_link, []}, restart => permanent}.

server() ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, []),
    {ok, Server} = supervisor:start_child(Supervisor, child(server)),
    Server.

calls(_, 0) -> ok;
calls(Server, N) -> N = gen_server:call(Server, {echo, N}), calls(Server, N - 1).

casts(_, 0) -> ok;
casts(Server, N) -> gen_server:cast(Server, tick), casts(Server, N - 1).

per_second(N, Work) ->
    Began = erlang:monotonic_time(nanosecond),
    Work(),
    N * 1.0e9 / (erlang:monotonic_time(nanosecond) - Began).
