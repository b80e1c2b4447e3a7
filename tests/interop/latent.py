# SPDX-License-Identifier: Apache-2.0
"""What avpctl writes, torch and safetensors read, and the other way round."""
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback

import torch

try:
    from safetensors.torch import save_file
except ImportError:
    save_file = None

AVPCTL = os.path.abspath("build/avpctl")
CONFIG = {"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 4, "tie_word_embeddings": False}


class Skip(Exception):
    pass


def avpctl(*args, ok=True):
    """The JSON that avpctl prints, or its stderr when ok is False."""
    p = subprocess.run([AVPCTL, *map(str, args)], capture_output=True,
                       text=True)
    if not ok:
        assert p.returncode == 1, (p.returncode, p.stderr)
        return p.stderr
    assert p.returncode == 0, p.stderr
    return json.loads(p.stdout)


def read_f32(path, *shape):
    return torch.frombuffer(bytearray(open(path, "rb").read()),
                            dtype=torch.float32).reshape(shape)


def reference(e_in, e_out, lam=1e-5):
    """AVP.md's formula, as the reference SDK computes it."""
    e_in, e_out = e_in.float(), e_out.float()
    gram = e_out.T @ e_out + lam * torch.eye(e_out.shape[1])
    return (torch.linalg.solve(gram, e_out.T @ e_in),
            e_in.norm(dim=1).mean())


def load(path):
    """torch.load without executing anything, where this torch can do it."""
    if "weights_only" in inspect.signature(torch.load).parameters:
        return torch.load(path, weights_only=True)
    return torch.load(path)


def model(tmp, dtype=torch.float32, vocab=500, dim=64):
    torch.manual_seed(7)
    return {"model.embed_tokens.weight":
            (torch.randn(vocab, dim) * 0.02).to(dtype),
            "lm_head.weight": (torch.randn(vocab, dim) * 0.02).to(dtype),
            "model.norm.weight": torch.ones(dim, dtype=dtype)}


def write_config(tmp, **changes):
    with open(f"{tmp}/config.json", "w") as f:
        json.dump({**CONFIG, **changes}, f)


def need_safetensors():
    if save_file is None:
        raise Skip("safetensors cannot be installed from PyPI")


def compute(tmp, *more):
    return avpctl("realign", "compute", "--model", tmp, "--cache",
                  f"{tmp}/cache", "-o", f"{tmp}/W.f32", *more)


def cache_file(tmp):
    [name] = os.listdir(f"{tmp}/cache")
    return f"{tmp}/cache/{name}"


def close(a, b, tolerance):
    return (a.float() - b.float()).abs().max().item() <= tolerance


def one_file_model(tmp, dtype):
    need_safetensors()
    tensors = model(tmp, dtype)
    save_file(tensors, f"{tmp}/model.safetensors", metadata={"format": "pt"})
    write_config(tmp)
    return tensors


def test_safetensors_model(tmp):
    for dtype, tolerance in ((torch.float32, 2e-6), (torch.float16, 2e-6),
                             (torch.bfloat16, 2e-6)):
        tensors = one_file_model(tmp, dtype)
        answer = compute(tmp, "--lambda", "1e-3")
        w, norm = reference(tensors["model.embed_tokens.weight"],
                            tensors["lm_head.weight"], 1e-3)
        assert close(read_f32(f"{tmp}/W.f32", 64, 64), w, tolerance), dtype
        assert abs(answer["target_norm"] - norm.item()) < 1e-6
    os.truncate(f"{tmp}/model.safetensors",
                os.path.getsize(f"{tmp}/model.safetensors") - 1)
    assert "DESERIALIZATION_ERROR" in avpctl(
        "realign", "compute", "--model", tmp, ok=False)
    write_config(tmp, tie_word_embeddings=True)
    assert "tied" in avpctl("realign", "compute", "--model", tmp, ok=False)


def test_sharded_model(tmp):
    need_safetensors()
    tensors = model(tmp, torch.bfloat16)
    names = list(tensors)
    save_file({n: tensors[n] for n in names[:1]}, f"{tmp}/a.safetensors")
    save_file({n: tensors[n] for n in names[1:]}, f"{tmp}/b.safetensors")
    with open(f"{tmp}/model.safetensors.index.json", "w") as f:
        json.dump({"metadata": {"total_size": 1}, "weight_map": {
            n: "a.safetensors" if i < 1 else "b.safetensors"
            for i, n in enumerate(names)}}, f)
    write_config(tmp)
    compute(tmp)
    w, _ = reference(tensors[names[0]], tensors[names[1]])
    assert close(read_f32(f"{tmp}/W.f32", 64, 64), w, 2e-6)


def plain_model(tmp):
    """A model's file without the library that writes it."""
    tensors = model(tmp)
    header, data = {}, b""
    for name, t in tensors.items():
        raw = t.contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    with open(f"{tmp}/model.safetensors", "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + data)
    write_config(tmp)
    return tensors


def test_cache_read_by_torch(tmp):
    plain_model(tmp)
    answer = compute(tmp)
    assert answer["cached"] is False
    got = load(cache_file(tmp))
    assert sorted(got) == ["target_norm", "w_realign"]
    assert torch.equal(got["w_realign"], read_f32(f"{tmp}/W.f32", 64, 64))
    assert got["w_realign"].dtype == torch.float32
    assert got["target_norm"].item() == answer["target_norm"]
    assert compute(tmp)["cached"] is True


def test_cache_written_by_torch(tmp):
    plain_model(tmp)
    compute(tmp)
    w = torch.randn(64, 64)
    for norm in (torch.tensor(0.75), 0.75, torch.tensor([0.75])):
        torch.save({"w_realign": w, "target_norm": norm}, cache_file(tmp))
        answer = compute(tmp)
        assert answer["cached"] is True and answer["target_norm"] == 0.75
        assert torch.equal(read_f32(f"{tmp}/W.f32", 64, 64), w)
    # What is not that dictionary is computed anew, not believed.
    for odd in ({"w_realign": w}, [w], {"w_realign": w, "target_norm": 1,
                                        "more": print}):
        torch.save(odd, cache_file(tmp))
        assert compute(tmp)["cached"] is False
        assert compute(tmp)["cached"] is True


def test_transposed_half_cache(tmp):
    """A solver's result is column-major; a model may be kept in half."""
    plain_model(tmp)
    compute(tmp)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        w = torch.randn(64, 64).to(dtype)
        torch.save({"w_realign": w.T, "target_norm":
                    torch.tensor(0.5, dtype=dtype)}, cache_file(tmp))
        assert compute(tmp)["cached"] is True
        assert torch.equal(read_f32(f"{tmp}/W.f32", 64, 64), w.T.float())
    big = torch.randn(80, 100)
    torch.save({"w_realign": big[3:67, 20:84], "target_norm":
                torch.tensor(0.5)}, cache_file(tmp))
    assert compute(tmp)["cached"] is True
    assert torch.equal(read_f32(f"{tmp}/W.f32", 64, 64), big[3:67, 20:84])


def files(tmp, e_in, e_out):
    e_in.numpy().tofile(f"{tmp}/in.f32")
    e_out.numpy().tofile(f"{tmp}/out.f32")
    return avpctl("realign", "compute", "--e-in", f"{tmp}/in.f32", "--e-out",
                  f"{tmp}/out.f32", "--vocab", e_in.shape[0], "--dim",
                  e_in.shape[1], "-o", f"{tmp}/W.f32")


def test_realign_like_torch(tmp):
    torch.manual_seed(3)
    for vocab, dim in ((300, 32), (5000, 128)):
        e_in, e_out = (torch.randn(vocab, dim) * 0.05 for _ in range(2))
        answer = files(tmp, e_in, e_out)
        w, norm = reference(e_in, e_out)
        assert close(read_f32(f"{tmp}/W.f32", dim, dim), w, 2e-6)
        h = torch.randn(9, dim)
        h.numpy().tofile(f"{tmp}/h.f32")
        subprocess.run([AVPCTL, "realign", "apply", "--matrix",
                        f"{tmp}/W.f32", "--target-norm",
                        repr(answer["target_norm"]), "--in", f"{tmp}/h.f32",
                        "--dim", str(dim), "-o", f"{tmp}/y.f32"], check=True)
        y = h @ w
        y = y * (norm / y.norm(dim=1, keepdim=True).clamp_min(1e-6))
        assert close(read_f32(f"{tmp}/y.f32", 9, dim), y, 1e-5)


def test_conversions_like_torch(tmp):
    """Every 16-bit pattern widened, and 2^20 float32 patterns narrowed."""
    import ctypes
    lib = ctypes.CDLL(os.path.abspath("build/libavp.so"))

    def convert(src, to, to_dtype, from_dtype):
        lib.avp_convert(ctypes.c_void_p(to.data_ptr()), to_dtype,
                        ctypes.c_void_p(src.data_ptr()), from_dtype,
                        ctypes.c_size_t(src.numel()))
        return to

    bits16 = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    torch.manual_seed(1)
    bits32 = torch.randint(-2**31, 2**31, (1 << 20,)).to(torch.int32)
    for ours, theirs in ((1, torch.float16), (2, torch.bfloat16)):
        want = bits16.view(theirs).float()
        got = convert(bits16, torch.empty(65536), 0, ours)
        ok = (want == got) | (want.isnan() & got.isnan())
        assert ok.all()
        x = bits32.view(torch.float32)
        want = x.to(theirs)
        got = convert(x, torch.empty(len(x), dtype=torch.int16), ours,
                      0).view(theirs)
        nan = want.isnan()
        assert torch.equal(nan, got.isnan())
        same = want.view(torch.int16) == got.view(torch.int16)
        assert (same | nan).all()


def speed_beside_torch(tmp):
    """Informs only: a measurement is no test."""
    torch.manual_seed(5)
    e_in, e_out = (torch.randn(16000, 1024) * 0.05 for _ in range(2))
    ours = min(files(tmp, e_in, e_out)["seconds"] for _ in range(3))
    theirs = []
    for _ in range(3):
        t = time.monotonic()
        reference(e_in, e_out)
        theirs.append(time.monotonic() - t)
    print(f"  realign 16000 x 1024: ours {ours:.3f} s, torch "
          f"{torch.__version__} {min(theirs):.3f} s")


def main():
    failed = 0
    for name, test in list(globals().items()):
        if not name.startswith("test_"):
            continue
        name = "latent." + name[len("test_"):]
        try:
            with tempfile.TemporaryDirectory() as tmp:
                test(tmp)
            print("ok", name)
        except Skip as e:
            print(f"skip {name}: {e}")
        except Exception:
            traceback.print_exc(file=sys.stdout)
            print("FAIL", name)
            failed = 1
    with tempfile.TemporaryDirectory() as tmp:
        speed_beside_torch(tmp)
    return failed


if __name__ == "__main__":
    sys.exit(main())
