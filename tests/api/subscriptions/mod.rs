//! Subscriptions, and the transports that carry them.

mod event_stream;
mod fan_out;
mod immediate_updates;
mod interruptions;
mod lifetimes;
mod polling;
mod subscriber_limit;
mod websocket;
mod websocket_bounds;
mod websocket_frames;
