use std::collections::VecDeque;

use super::*;

const TIMES: Times = Times {
    unknown: Duration::from_secs(30),
    retry: Duration::from_secs(10),
    keep: Duration::from_secs(86_400),
};

/// Says what is queued for it, then that it has nothing; each answer waits for a permit.
struct Scripted {
    answers: Arc<Mutex<VecDeque<Result<u32, String>>>>,
    asked: Arc<AtomicUsize>,
    gate: Arc<tokio::sync::Semaphore>,
}

impl Source for Scripted {
    type Keys = u32;

    fn name(&self) -> &str {
        "test"
    }

    async fn read(&self) -> Result<(u32, Duration), String> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        let answer = self.answers.lock().unwrap().pop_front();
        let answer = answer.unwrap_or_else(|| Err("down".to_owned()))?;
        assert_ne!(answer, 13, "a panic in a source");
        Ok((answer, Duration::from_secs(60)))
    }
}

struct Bed {
    keys: Arc<KeySet<Scripted>>,
    clock: Clock,
    asked: Arc<AtomicUsize>,
    gate: Arc<tokio::sync::Semaphore>,
    answers: Arc<Mutex<VecDeque<Result<u32, String>>>>,
}

fn bed(permits: usize, answers: &[Option<u32>]) -> Bed {
    let answers = answers.iter().map(|a| a.ok_or_else(|| "down".to_owned())).collect();
    let answers = Arc::new(Mutex::new(answers));
    let (asked, clock) = (Arc::<AtomicUsize>::default(), Clock::default());
    let gate = Arc::new(tokio::sync::Semaphore::new(permits));
    let source = Scripted { answers: answers.clone(), asked: asked.clone(), gate: gate.clone() };
    Bed { keys: Arc::new(KeySet::new(source, TIMES, clock.clone())), clock, asked, gate, answers }
}

impl Bed {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Lets the attempt under way come to its end.
    async fn settle(&self) {
        while self.keys.0.slot().running {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn many_wait_for_one_attempt() {
    let bed = bed(0, &[Some(1), Some(2)]);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let keys = bed.keys.clone();
            tokio::spawn(async move { keys.get().await.map(|k| *k) })
        })
        .collect();
    while bed.asked() == 0 || bed.keys.0.waiters.load(Ordering::SeqCst) < 20 {
        tokio::task::yield_now().await;
    }
    bed.gate.add_permits(1);
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(1));
    }
    assert_eq!(bed.asked(), 1);
    assert_eq!(bed.keys.0.waiters.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_attempt_outlives_who_began_it() {
    let bed = bed(0, &[Some(1)]);
    let first = tokio::spawn({
        let keys = bed.keys.clone();
        async move { keys.get().await.map(drop) }
    });
    while bed.asked() == 0 {
        tokio::task::yield_now().await;
    }
    first.abort();
    bed.gate.add_permits(1);
    bed.settle().await;
    assert_eq!((*bed.keys.get().await.unwrap(), bed.asked()), (1, 1));
}

#[tokio::test]
async fn no_more_than_some_wait() {
    let bed = bed(0, &[Some(1)]);
    let waiting: Vec<_> = (0..WAITERS)
        .map(|_| {
            let keys = bed.keys.clone();
            tokio::spawn(async move { keys.get().await.map(|k| *k) })
        })
        .collect();
    while bed.keys.0.waiters.load(Ordering::SeqCst) < WAITERS {
        tokio::task::yield_now().await;
    }
    assert!(bed.keys.get().await.is_err(), "one more does not wait");
    bed.gate.add_permits(1);
    for one in waiting {
        assert_eq!(one.await.unwrap(), Ok(1));
    }
}

#[tokio::test]
async fn unknown_keys_are_asked_for_once_in_a_while() {
    let bed = bed(100, &[Some(1), Some(2), Some(3)]);
    let first = bed.keys.get().await.unwrap();
    let second = bed.keys.newer(&first).await.unwrap().unwrap();
    assert_eq!((*second, bed.asked()), (2, 2));
    assert_eq!(bed.keys.newer(&first).await.unwrap().as_deref(), Some(&2), "had meanwhile");
    for _ in 0..100 {
        assert_eq!(bed.keys.newer(&second).await, Ok(None));
    }
    bed.clock.advance(Duration::from_secs(29));
    assert_eq!(bed.keys.newer(&second).await, Ok(None));
    assert_eq!(bed.asked(), 2);
    bed.clock.advance(Duration::from_secs(1));
    assert_eq!(bed.keys.newer(&second).await.unwrap().as_deref(), Some(&3));
    assert_eq!(bed.asked(), 3);
}

#[tokio::test]
async fn old_keys_are_used_while_none_can_be_had_but_not_for_ever() {
    let bed = bed(100, &[Some(1)]);
    let first = bed.keys.get().await.unwrap();
    bed.clock.advance(Duration::from_secs(59));
    bed.keys.get().await.unwrap();
    assert_eq!(bed.asked(), 1, "fresh");
    bed.clock.advance(Duration::from_secs(1));
    for _ in 0..10 {
        assert_eq!(*bed.keys.get().await.unwrap(), 1);
        bed.settle().await;
    }
    assert_eq!(bed.asked(), 2, "one attempt that failed");
    let wait = bed.keys.newer(&first).await.unwrap_err().retry_after;
    assert!(wait > Duration::from_secs(5) && wait <= Duration::from_secs(10), "{wait:?}");
    assert_eq!(bed.asked(), 2);
    bed.clock.advance(Duration::from_secs(86_400 - 61));
    assert_eq!(*bed.keys.get().await.unwrap(), 1);
    bed.settle().await;
    bed.clock.advance(Duration::from_secs(11));
    assert!(bed.keys.get().await.is_err());
    assert_eq!(bed.keys.last().as_deref(), Some(&1));
    bed.answers.lock().unwrap().push_back(Ok(5));
    bed.clock.advance(Duration::from_secs(10));
    assert_eq!(*bed.keys.get().await.unwrap(), 5);
}

#[tokio::test]
async fn failures_are_spaced_and_a_panic_is_one() {
    let bed = bed(100, &[None, Some(13), Some(3)]);
    for _ in 0..10 {
        let none = bed.keys.get().await.unwrap_err();
        assert!(none.retry_after > Duration::from_secs(5) && none.retry_after <= Duration::from_secs(10));
    }
    assert_eq!(bed.asked(), 1);
    bed.clock.advance(Duration::from_secs(10));
    assert!(bed.keys.get().await.is_err());
    assert_eq!(bed.asked(), 2);
    bed.clock.advance(Duration::from_secs(10));
    assert_eq!(*bed.keys.get().await.unwrap(), 3);
}
