//! Which named queue goes first: strict order, or weights.

use windlass_core::{Error, ErrorKind, QueueName, Result};

/// The named queues of a worker, and how a claim orders them.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    lanes: Vec<Weighted>,
    weighted: bool,
}

#[derive(Clone, Debug)]
struct Weighted {
    name: QueueName,
    weight: i64,
    credit: i64,
}

impl Order {
    pub(crate) fn strict<N: TryInto<QueueName, Error: Into<Error>>>(
        queues: impl IntoIterator<Item = N>,
    ) -> Result<Self> {
        Self::of(queues.into_iter().map(|name| (name, 1)), false)
    }

    pub(crate) fn weighted<N: TryInto<QueueName, Error: Into<Error>>>(
        queues: impl IntoIterator<Item = (N, u32)>,
    ) -> Result<Self> {
        Self::of(queues, true)
    }

    fn of<N: TryInto<QueueName, Error: Into<Error>>>(
        queues: impl IntoIterator<Item = (N, u32)>,
        weighted: bool,
    ) -> Result<Self> {
        let mut lanes: Vec<Weighted> = Vec::new();
        for (name, weight) in queues {
            let name: QueueName = name.try_into().map_err(Into::into)?;
            if weight == 0 {
                return Err(Error::new(
                    ErrorKind::Config,
                    format!("weight 0 would starve the queue \"{name}\": use 1 or more"),
                ));
            }
            if lanes.iter().any(|lane| lane.name == name) {
                return Err(Error::new(ErrorKind::Config, format!("the queue \"{name}\" is named twice")));
            }
            lanes.push(Weighted { name, weight: i64::from(weight), credit: 0 });
        }
        if lanes.is_empty() {
            return Err(Error::new(ErrorKind::Config, "a worker needs at least one named queue"));
        }
        Ok(Self { lanes, weighted })
    }

    /// The order of the next claim.
    ///
    /// By weights: smooth weighted round robin (as nginx balances upstreams). Each queue earns its weight in credit a turn;
    /// the richest goes first and pays the sum of all weights. The rest follow by credit.
    pub(crate) fn next(&mut self) -> Vec<QueueName> {
        if self.weighted {
            let sum: i64 = self.lanes.iter().map(|lane| lane.weight).sum();
            for lane in &mut self.lanes {
                lane.credit += lane.weight;
            }
            // A stable sort: equal credit keeps the order that was given.
            self.lanes.sort_by_key(|lane| std::cmp::Reverse(lane.credit));
            self.lanes[0].credit -= sum;
        }
        self.names()
    }

    /// All of them.
    pub(crate) fn names(&self) -> Vec<QueueName> {
        self.lanes.iter().map(|lane| lane.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn strict_order_stays_as_it_was_given() {
        let mut order = Order::strict(["b", "a"]).unwrap();
        for _ in 0..3 {
            assert_eq!(order.next(), ["b", "a"]);
        }
    }

    #[test]
    fn weights_are_kept_in_every_round_and_nobody_waits_longer_than_one() {
        let mut order = Order::weighted([("a", 5), ("b", 1), ("c", 1)]).unwrap();
        for round in 0..20 {
            let mut first: HashMap<String, u32> = HashMap::new();
            for _ in 0..7 {
                let names = order.next();
                assert_eq!(names.len(), 3);
                *first.entry(names[0].to_string()).or_default() += 1;
            }
            assert_eq!((first["a"], first["b"], first["c"]), (5, 1, 1), "round {round}");
        }
    }

    #[test]
    fn bad_orders_are_refused() {
        let text = |order: Result<Order>| order.unwrap_err().to_string();
        assert!(text(Order::strict(Vec::<&str>::new())).contains("at least one named queue"));
        assert!(text(Order::strict(["a", "a"])).contains("\"a\" is named twice"));
        assert!(text(Order::strict(["No Good"])).contains("queue name"));
        assert!(text(Order::weighted([("a", 0)])).contains("weight 0 would starve"));
    }
}
