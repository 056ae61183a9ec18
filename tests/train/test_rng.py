"""Keys are a function of seed, stream and step."""

import jax

from gmmas_jax.train.rng import stream_key


def _bits(*arguments):
    return jax.random.key_data(stream_key(*arguments)).tolist()


def test_keys_depend_on_seed_stream_and_step():
    keys = [
        _bits(0, "dropout", 0),
        _bits(1, "dropout", 0),
        _bits(0, "init", 0),
        _bits(0, "dropout", 1),
    ]
    assert len({tuple(key) for key in keys}) == 4
    assert _bits(0, "dropout", 1) == keys[3]


def test_traced_step_gives_the_same_key():
    traced = jax.jit(lambda step: jax.random.key_data(stream_key(3, "dropout", step)))(5)
    assert traced.tolist() == _bits(3, "dropout", 5)
