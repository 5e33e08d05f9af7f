"""Siemens raw-data files of known content, as VB or as VD and later write them."""

import struct

import numpy as np
from scipy.spatial.transform import Rotation
from twixtools import hdr_def, mdh_def

LPS = np.diag([-1.0, -1.0, 1.0])
SCAN = np.dtype(mdh_def.Scan_header)
OLD = np.dtype(mdh_def.VB17_header)


def protocol(raw, changes=()):
    """Lines of the protocol of a scan."""
    (nx, ny, nz), mm, e = raw.grid.shape, raw.grid.voxel_mm, raw.encoding
    keep = [n - s for n, s in zip((ny, nz), e.surplus, strict=True)]
    lines = {
        "sKSpace.lBaseResolution": nx,
        "sKSpace.lPhaseEncodingLines": ny,
        "sKSpace.lPartitions": nz,
        "sKSpace.dPhaseOversamplingForDialog": ny / keep[0] - 1,
        "sKSpace.dSliceOversamplingForDialog": 0 if e.slices else nz / keep[1] - 1,
        "sKSpace.ucDimension": 2 if e.slices else "0x4",
        "sKSpace.ucTrajectory": "0x1",
        "sSliceArray.asSlice[0].dReadoutFOV": nx * mm[0],
        "sSliceArray.asSlice[0].dPhaseFOV": keep[0] * mm[1],
        "sSliceArray.asSlice[0].dThickness": mm[2] * (1 if e.slices else keep[1]),
        "sPat.lAccelFactPE": e.acceleration[0],
        "sPat.lAccelFact3D": e.acceleration[1],
        "sFastImaging.lEPIFactor": e.train,
        "lContrasts": len(raw.scan.te_s),
        **{f"alTE[{n}]": round(1e6 * t) for n, t in enumerate((*raw.scan.te_s, 0.1, 0.2))},
        "alTR[0]": 39000,
        "adFlipAngleDegree[0]": 15.0,
        "sRXSPEC.alDwellTime[0]": 5000,
        "sTXSPEC.asNucleusInfo[0].tNucleus": '"1H"',
        "sTXSPEC.asNucleusInfo[0].lFrequency": round(raw.scan.b0_tesla * 42.577478e6),
    } | dict(changes)
    return "".join(f"{k}\t = \t{v}\n" for k, v in lines.items() if v is not None)


def header(text, made=""):
    """The text blocks in front of the readouts."""
    asc = f"<XProtocol> \n{{\n}}\n### ASCCONV BEGIN ###\n{text}\n### ASCCONV END ###\n"
    blocks = {"Config": "<XProtocol> {}", "Meas": f"<XProtocol> {{ {made} }}", "MeasYaps": asc}
    body = b"".join(k.encode() + b"\0" + struct.pack("<I", len(v)) + v.encode() for k, v in blocks.items())
    length = 8 + len(body)
    length += -length % 32 + 16384
    return (struct.pack("<II", length, len(blocks)) + body).ljust(length, b"\0")


def ramps(up, flat, down, delay, duration):
    """What the scanner notes of gradients that are sampled while they rise and fall."""
    values = {"RampupTime": up, "FlattopTime": flat, "RampdownTime": down, "DelaySamplesTime": delay}
    words = [f'<ParamLong."alRegrid{k}"> {{ {v} 0 }}' for k, v in values.items()]
    words += ['<ParamLong."alRegridMode"> { 2 1 }']
    return " ".join([*words, f'<ParamDouble."aflRegridADCDuration"> {{ <Precision> 6  {duration} 0 }}'])


def _record(new, data, head, count):
    coils, samples = data.shape
    one = np.zeros(1, SCAN if new else OLD)
    one["SamplesInScan"], one["UsedChannels"], one["ScanCounter"] = samples, coils, count
    for name, value in head.items():
        target = one
        *path, last = name.split(".")
        for p in path:
            target = target[p]
        target[last] = value
    size = 192 + coils * (32 + 8 * samples) if new else 128 + 8 * samples
    one["FlagsAndDMALength"] = size
    front = one.tobytes()
    values = [d.astype(np.complex64).tobytes() for d in data]
    return front + b"".join(bytes(32) + v for v in values) if new else b"".join(front + v for v in values)


def records(raw, new=True, xa=False, interleaved=True, extra=(), change=None):
    """All readouts of a scan as bytes, echoes of one excitation after each other; then the end mark."""
    a = np.asarray(raw.grid.affine)
    axes = LPS @ (a[:3, :3] / np.asarray(raw.grid.voxel_mm))
    x, y, z, w = Rotation.from_matrix(-axes[:, [1, 0, 2]]).as_quat()
    e, shape = raw.encoding, raw.grid.shape
    rows = []

    def add(block, echo, *flags):
        for i in range(len(block.ky)):
            time = 0.0 if block.time_s is None else float(block.time_s[i])
            kz = int(block.kz[i])
            at = a @ (shape[0] // 2, shape[1] // 2, kz if e.slices else shape[2] // 2, 1)
            sag, cor, tra = LPS @ at[:3]
            mask = sum(1 << mdh_def.mask_dict[f] for f in flags)
            mask |= int(block.reverse[i]) << mdh_def.mask_dict["REFLECT"]
            head = {
                "EvalInfoMask": mask,
                "TimeStamp": round(time / 2.5e-3),
                "Counter.Lin": int(block.ky[i]),
                "Counter.Sli" if e.slices else "Counter.Par": kz,
                "Counter.Ave": int(block.average[i]) if "PHASCOR" not in flags else 1,
                "Counter.Eco": 0 if xa else echo,
                "CenterCol": e.centre_sample,
                "CenterLin": e.centre[1],
                "CenterPar": 0 if e.slices else e.centre[2],
                "SliceData.SlicePos.Sag": sag,
                "SliceData.SlicePos.Cor": cor,
                "SliceData.SlicePos.Tra": tra,
                "SliceData.Quaternion": (w, x, y, z),
            }
            order = (int(block.average[i]), int(block.shot[i]), echo, "PHASCOR" not in flags)
            rows.append((order, block.data[i].numpy(), head))

    for data, flags in extra:
        rows.append(((-1,), data, {"EvalInfoMask": sum(1 << mdh_def.mask_dict[f] for f in flags)}))
    if raw.reference is not None:
        for block in raw.reference():
            n = len(rows)
            add(block, 0, "PATREFSCAN")
            rows[n:] = [((-1,), d, h) for _, d, h in rows[n:]]
    for echo in range(len(raw.scan.te_s)):
        if raw.navigators is not None:
            add(raw.navigators(echo), echo, "PHASCOR", "RTFEEDBACK")
        for block in raw.lines(echo):
            add(block, echo)
    if interleaved:
        rows.sort(key=lambda row: row[0])
    if change is not None:
        change(rows)
    parts = [_record(new, data, head, n + 1) for n, (_, data, head) in enumerate(rows)]
    end = np.zeros(1, SCAN if new else OLD)
    end["EvalInfoMask"], end["FlagsAndDMALength"] = 1, end.itemsize + 160
    return b"".join(parts) + end.tobytes() + bytes(160)


def noise_records(samples, new=True):
    """A measurement that holds noise only."""
    end = np.zeros(1, SCAN if new else OLD)
    end["EvalInfoMask"], end["FlagsAndDMALength"] = 1, end.itemsize
    mask = 1 << mdh_def.mask_dict["NOISEADJSCAN"]
    return _record(new, samples, {"EvalInfoMask": mask}, 1) + end.tobytes()


def write(path, *measurements, new=True):
    """Measurements, each a header and its records, to one file."""
    blobs = [a + b for a, b in measurements]
    if not new:
        path.write_bytes(blobs[0])
        return path
    front = np.zeros(1, hdr_def.MultiRaidFileHeader)
    front["hdr"]["count_"] = len(blobs)
    out, at = b"", 10240
    for n, blob in enumerate(blobs):
        front["entry"]["off_"][0, n], front["entry"]["len_"][0, n] = at, len(blob)
        out += blob.ljust(len(blob) + -len(blob) % 512, b"\0")
        at = 10240 + len(out)
    path.write_bytes(front.tobytes().ljust(10240, b"\0") + out)
    return path
