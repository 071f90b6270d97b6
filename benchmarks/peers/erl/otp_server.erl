-module(otp_server).
-behaviour(gen_server).
-export([start_link/0, init/1, handle_call/3, handle_cast/2]).

start_link() -> gen_server:start_link(?MODULE, [], []).

init([]) -> {ok, 0}.

handle_call({echo, Value}, _From, Count) -> {reply, Value, Count};
handle_call(read, _From, Count) -> {reply, Count, Count}.

handle_cast(tick, Count) -> {noreply, Count + 1}.
