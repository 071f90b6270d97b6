-module(otp_server).
-behaviour(gen_server).
-export([start/0, start_link/0, start_link/2, init/1, handle_call/3, handle_cast/2]).

start() -> gen_server:start(?MODULE, quiet, []).

start_link() -> gen_server:start_link(?MODULE, quiet, []).

%% A name is what stays valid across restarts, as a ref of ours does.
start_link(Name, Watcher) -> gen_server:start_link({local, Name}, ?MODULE, {tell, Watcher}, []).

init({tell, Watcher}) ->
    Watcher ! {up, self(), erlang:monotonic_time(nanosecond)},
    {ok, 0};
init(quiet) ->
    {ok, 0}.

handle_call({echo, Value}, _From, Count) -> {reply, Value, Count};
handle_call(read, _From, Count) -> {reply, Count, Count}.

handle_cast(tick, Count) -> {noreply, Count + 1};
handle_cast(crash, _Count) -> erlang:error(boom).
