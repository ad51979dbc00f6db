-- Reserve the next slot of a lane. $1 lane, $2 limit, $3 window with its guard, $4 lead; all times are microseconds.
SELECT granted, number, now_us FROM limiter_reserve($1, $2, $3, $4)
