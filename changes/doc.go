// Package changes is the way of a changed row from the log to the channels that
// may see it: subscriptions are matched by table, event and filter, judged by
// row level security on the very image that is delivered, rendered once for
// everybody who sees the same columns, and handed to realtime in commit order.
package changes
