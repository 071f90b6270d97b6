%% One measurement per emulator: `erl -noshell -run otp_peer main BENCH COUNT` prints one number and ends. What is measured
%% against the clock is done once before, in full, to warm up.
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
    rate(N, fun() -> calls(Server, N) end);
measure("call-forever", N) ->
    Server = server(),
    rate(N, fun() -> patient_calls(Server, N) end);
measure("cast", N) ->
    Server = server(),
    rate(N, fun() ->
        Expected = gen_server:call(Server, read) + N,
        casts(Server, N),
        Expected = gen_server:call(Server, read, infinity)
    end);
%% A ring of bare processes, which is faster than one of servers.
measure("ring", N) ->
    First = ring(1000, self()),
    rate(N, fun() -> First ! {token, N}, receive arrived -> ok end end);
%% Without a supervisor, which is faster than with one.
measure("start-stop", N) ->
    rate(N, fun() ->
        Servers = [begin {ok, Server} = otp_server:start(), Server end || _ <- lists:seq(1, N)],
        [ok = gen_server:stop(Server) || Server <- Servers]
    end);
%% The same, each end witnessed by a monitor too, in an emulator that has started a few before.
measure("start-stop-monitored", N) ->
    witnessed(2000),
    N / seconds(fun() -> witnessed(N) end);
%% Children per second, by either kind of supervisor.
measure("start-" ++ Kind, N) ->
    {Start, _Stop} = warm(fun() -> children(Kind, N) end),
    N / Start;
measure("stop-" ++ Kind, N) ->
    {_Start, Stop} = warm(fun() -> children(Kind, N) end),
    N / Stop;
%% Bytes per idle supervised server.
measure("idle", N) ->
    {Supervisor, Start} = supervisor("simple_one_for_one"),
    Start(0),
    settle(Supervisor),
    Before = erlang:memory(total),
    lists:foreach(Start, lists:seq(1, N)),
    settle(Supervisor),
    (erlang:memory(total) - Before) / N;
%% Microseconds from the end of a child until the init of its replacement, the median of N. The supervisor's history of
%% restarts is cleared every 50, so that the restart alone is measured; in a burst it grows as it does in a storm.
measure("restart-kill", N) -> median(warm(fun() -> restarts(N, fun kill/1, fun clear/2) end));
measure("restart-throw", N) -> median(warm(fun() -> restarts(N, fun crash/1, fun clear/2) end));
measure("restart-burst", N) -> median(warm(fun() -> restarts(N, fun kill/1, fun keep/2) end)).

init(Specification) -> {ok, Specification}.

server() ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, {#{}, [child(server)]}),
    [{server, Server, _, _}] = supervisor:which_children(Supervisor),
    Server.

child(Id) -> #{id => Id, start => {otp_server, start_link, []}, restart => temporary}.

calls(_, 0) -> ok;
calls(Server, N) -> N = gen_server:call(Server, {echo, N}), calls(Server, N - 1).

patient_calls(_, 0) -> ok;
patient_calls(Server, N) -> N = gen_server:call(Server, {echo, N}, infinity), patient_calls(Server, N - 1).

casts(_, 0) -> ok;
casts(Server, N) -> gen_server:cast(Server, tick), casts(Server, N - 1).

ring(Size, Main) ->
    Last = spawn_link(fun() -> receive {next, Next} -> pass(Next, Main) end end),
    First = lists:foldl(fun(_, Next) -> spawn_link(fun() -> pass(Next, Main) end) end, Last, lists:seq(2, Size)),
    Last ! {next, First},
    First.

pass(Next, Main) ->
    receive
        {token, 0} -> Main ! arrived;
        {token, Hops} -> Next ! {token, Hops - 1}
    end,
    pass(Next, Main).

witnessed(N) ->
    Servers = [begin {ok, Server} = otp_server:start(), Server end || _ <- lists:seq(1, N)],
    Monitors = [monitor(process, Server) || Server <- Servers],
    [ok = gen_server:stop(Server) || Server <- Servers],
    [receive {'DOWN', Monitor, process, _, _} -> ok end || Monitor <- Monitors].

%% A supervisor and how to start a child of it, by a number.
supervisor("simple_one_for_one") ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, {#{strategy => simple_one_for_one}, [child(server)]}),
    {Supervisor, fun(_) -> {ok, _} = supervisor:start_child(Supervisor, []) end};
supervisor("one_for_one") ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, {#{strategy => one_for_one}, []}),
    {Supervisor, fun(Id) -> {ok, _} = supervisor:start_child(Supervisor, child(Id)) end}.

%% Seconds to start N children, and to stop them with their supervisor.
children(Kind, N) ->
    {Supervisor, Start} = supervisor(Kind),
    Monitor = monitor(process, Supervisor),
    unlink(Supervisor),
    {
        seconds(fun() -> lists:foreach(Start, lists:seq(1, N)) end),
        seconds(fun() -> exit(Supervisor, shutdown), receive {'DOWN', Monitor, _, _, _} -> ok end end)
    }.

restarts(N, End, Before) ->
    Child = #{id => victim, start => {otp_server, start_link, [victim, self()]}, shutdown => brutal_kill},
    {ok, Supervisor} = supervisor:start_link(?MODULE, {#{intensity => 100000000, period => 1}, [Child]}),
    receive {up, Victim, _} -> ok end,
    Times = restarts(N, End, Before, Supervisor, Victim, []),
    unlink(Supervisor),
    exit(Supervisor, shutdown),
    wait(Supervisor),
    Times.

restarts(0, _, _, _, _, Times) -> Times;
restarts(N, End, Before, Supervisor, Victim, Times) ->
    Before(N, Supervisor),
    Began = erlang:monotonic_time(nanosecond),
    End(Victim),
    receive
        {up, Replacement, Up} ->
            Replacement = whereis(victim),
            restarts(N - 1, End, Before, Supervisor, Replacement, [(Up - Began) / 1000 | Times])
    end.

kill(Victim) -> exit(Victim, kill).

crash(Victim) -> gen_server:cast(Victim, crash).

keep(_, _) -> ok.

%% The history is the only list of numbers in a supervisor's state.
clear(N, Supervisor) when N rem 50 =:= 0 ->
    Forget = fun([Time | _]) when is_integer(Time) -> []; (Field) -> Field end,
    sys:replace_state(Supervisor, fun(State) -> list_to_tuple(lists:map(Forget, tuple_to_list(State))) end);
clear(_, _) -> ok.

wait(Process) ->
    Monitor = monitor(process, Process),
    receive {'DOWN', Monitor, _, _, _} -> ok end.

settle(Supervisor) ->
    erlang:garbage_collect(Supervisor),
    erlang:garbage_collect(),
    timer:sleep(200).

warm(Work) ->
    Work(),
    erlang:garbage_collect(),
    Work().

rate(N, Work) -> N / warm(fun() -> seconds(Work) end).

seconds(Work) ->
    Began = erlang:monotonic_time(nanosecond),
    Work(),
    (erlang:monotonic_time(nanosecond) - Began) / 1.0e9.

median(Times) -> lists:nth((length(Times) + 1) div 2, lists:sort(Times)).
