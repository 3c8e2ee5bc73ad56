// Package phoenix is the wire of Realtime: messages, the serializers of
// protocol versions 1.0.0 and 2.0.0, the payloads of joins, tokens and system
// messages. It is pure: bytes in, values out and back. Package realtime is its
// caller; the doctor reads frames with it.
//
// Protocol flow, in version 2.0.0 ("realtime:" is a part of every topic;
// 1.0.0 has the same messages as objects and never sends join_ref):
//
//	client                                      server
//	[null,"1","phoenix","heartbeat",{}]         [null,"1","phoenix","phx_reply",{"status":"ok","response":{}}]
//	["2","2",T,"phx_join",{"config":{…}}]       ["2","2",T,"phx_reply",{"status":"ok","response":{"postgres_changes":[…]}}]
//	                                            ["2",null,T,"system",{…}]  ["2",null,T,"presence_state",{…}]
//	["2","3",T,"broadcast",{…}], or kind 3      [null,null,T,"broadcast",{…}], or kind 4
//	["2","4",T,"presence",{"event":"track"}]    reply, [null,null,T,"presence_diff",{…}]
//	["2","5",T,"access_token",{…}]              nothing; "system" and phx_close when it is bad
//	["2","6",T,"phx_leave",{}]                  reply, ["2","2",T,"phx_close",{}]
//
// Everything that Decode returns aliases the frame's bytes or is bounded by
// them. JSON that goes back out was checked on its way in, UTF-8 included, so
// that no client can make the server send a frame that others must refuse.
package phoenix
