"""Invoices are decoded as BOLT 11 says, and everything else is refused.

The examples are published with BOLT 11 and BIP 173. An encoder in this file, which shares no code
with the decoder, and the simulator's write the other invoices.
"""

import copy
import math
import pickle
import string
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from fractions import Fraction
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sms4sats_async.errors import InvalidArgumentError, Sms4SatsError
from sms4sats_async.invoice import Invoice
from sms4sats_async.simulator import Network, make_invoice

# --- the examples of BOLT 11 ----------------------------------------------------------------------

# "Examples", by their headings.
EXAMPLES = {
    "a donation of any amount": (
        "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqq"
        "qsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs"
        "8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap9us6v52vjjsrvywa6rt"
        "52cm9r9zqt8r2t7mlcwspyetp5h2tztugp9lfyql"
    ),
    "a cup of coffee within a minute": (
        "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqw"
        "zqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy"
        "8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vg"
        "pfna3rh"
    ),
    "a cup of nonsense": (
        "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqw"
        "zqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4eyqc7d8d0xqzpu9qrsgqhtj"
        "pauu9ur7fw2thcl4y9vfvh4m9wlfyz2gem29g5ghe2aak2pm3ps8fdhtceqsaagty2vph7utlgj48u0ged6a337a"
        "ewvraedendscp573dxr"
    ),
    "a hashed description": (
        "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzq"
        "fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2a"
        "hrqs9qrsgq7ea976txfraylvgzuxs8kgcw23ezlrszfnh8r6qtfpr6cxga50aj6txm9rxrydzd06dfeawfk6swup"
        "vz4erwnyutnjq7x39ymw6j38gp7ynn44"
    ),
    "testnet and a fallback address": (
        "lntb20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygshp58yjmdan79s6qqdh"
        "dzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqf"
        "qypqfpp3x9et2e20v6pu37c5d9vax37wxq72un989qrsgqdj545axuxtnfemtpwkc45hx9d2ft7x04mt8q7y6t0k"
        "2dge9e7h8kpy9p34ytyslj3yu569aalz2xdk8xkd7ltxqld94u8h2esmsmacgpghe9k8"
    ),
    "extra routing info": (
        "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzq"
        "fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2a"
        "hrqsfpp3qjmp7lwpagxun9pygexvgpjdc4jdj85fr9yq20q82gphp2nflc7jtzrcazrra7wwgzxqc8u7754cdlpf"
        "rmccae92qgzqvzq2ps8pqqqqqqpqqqqq9qqqvpeuqafqxu92d8lr6fvg0r5gv0heeeqgcrqlnm6jhphu9y00rrhy"
        "4grqszsvpcgpy9qqqqqqgqqqqq7qqzq9qrsgqdfjcdk6w3ak5pca9hwfwfh63zrrz06wwfya0ydlzpgzxkn5xags"
        "qz7x9j4jwe7yj7vaf2k9lqsdk45kts2fd0fkr28am0u4w95tt2nsq76cqw0"
    ),
    "a P2SH address": (
        "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygshp58yjmdan79s6qqdh"
        "dzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqf"
        "qypqfppj3a24vwu6r8ejrss3axul8rxldph2q7z99qrsgqz6qsgww34xlatfj6e3sngrwfy3ytkt29d2qttr8qz2"
        "mnedfqysuqypgqex4haa2h8fx3wnypranf3pdwyluftwe680jjcfp438u82xqphf75ym"
    ),
    "a P2WPKH address": (
        "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygshp58yjmdan79s6qqdh"
        "dzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqf"
        "qypqfppqw508d6qejxtdg4y5r3zarvary0c5xw7k9qrsgqt29a0wturnys2hhxpner2e3plp6jyj8qx7548zr2z7"
        "ptgjjc7hljm98xhjym0dg52sdrvqamxdezkmqg4gdrvwwnf0kv2jdfnl4xatsqmrnsse"
    ),
    "a P2WSH address": (
        "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygshp58yjmdan79s6qqdh"
        "dzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqf"
        "qypqfp4qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q9qrsgq9vlvyj8cqvq6ggvpwd53jn"
        "cp9nwc47xlrsnenq2zp70fq83qlgesn4u3uyf4tesfkkwwfg3qs54qe426hp3tz7z6sweqdjg05axsrjqp9yrrwc"
    ),
    "a P2TR address": (
        "lnbc20m1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzq"
        "fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2a"
        "hrqsfp4pptdvg0d2nj99568qn6ssdy4cygnwuxgw2ukmnwgwz7jpqjz2kszs9qrsgqy606dznq28exnydt2r4c29"
        "y56xjtn3sk4mhgjtl4pg2y4ar3249rq4ajlmj9jy8zvlzw7cr8mggqzm842xfr0v72rswzq9xvr4hknfsqwmn6xd"
    ),
    "pico-bitcoin within a week": (
        "lnbc9678785340p1pwmna7lpp5gc3xfm08u9qy06djf8dfflhugl6p7lgza6dsjxq454gxhj9t7a0sd8dgfkx7cm"
        "twd68yetpd5s9xar0wfjn5gpc8qhrsdfq24f5ggrxdaezqsnvda3kkum5wfjkzmfqf3jkgem9wgsyuctwdus9xgr"
        "cyqcjcgpzgfskx6eqf9hzqnteypzxz7fzypfhg6trddjhygrcyqezcgpzfysywmm5ypxxjemgw3hxjmn8yptk7un"
        "td9hxwg3q2d6xjcmtv4ezq7pqxgsxzmnyyqcjqmt0wfjjq6t5v4khxsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg"
        "3zyg3zyg3zyg3zyg3zygsxqyjw5qcqp2rzjq0gxwkzc8w6323m55m4jyxcjwmy7stt9hwkwe2qxmy8zpsgg7jcuw"
        "z87fcqqeuqqqyqqqqlgqqqqn3qq9q9qrsgqrvgkpnmps664wgkp43l22qsgdw4ve24aca4nymnxddlnp8vh9v2sd"
        "xlu5ywdxefsfvm0fq3sesf08uf6q9a2ke0hc9j6z6wlxg5z5kqpu2v9wz"
    ),
    "coffee beans and feature 99": (
        "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyet"
        "pdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqqsgq2a25d"
        "xl5hrntdtn6zvydt7d66hyzsyhqs4wdynavys42xgl6sgx9c4g7me86a27t07mdtfry458rtjr0v92cnmswpsjsc"
        "gt2vcse3sgpz3uapa"
    ),
    "all upper case": (
        "LNBC25M1PVJLUEZPP5QQQSYQCYQ5RQWZQFQQQSYQCYQ5RQWZQFQQQSYQCYQ5RQWZQFQYPQDQ5VDHKVEN9V5SXYET"
        "PDEESSP5ZYG3ZYG3ZYG3ZYG3ZYG3ZYG3ZYG3ZYG3ZYG3ZYG3ZYG3ZYG3ZYGS9Q5SQQQQQQQQQQQQQQQQSGQ2A25D"
        "XL5HRNTDTN6ZVYDT7D66HYZSYHQS4WDYNAVYS42XGL6SGX9C4G7ME86A27T07MDTFRY458RTJR0V92CNMSWPSJSC"
        "GT2VCSE3SGPZ3UAPA"
    ),
    "fields which must be ignored": (
        "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyet"
        "pdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqqsgq2qrqq"
        "qfppnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqppnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
        "qqqpp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqhpnqqqqqqqqqqqqqqqqqqqqqqqqqq"
        "qqqqqqqqqqqqqqqqqqqqqqqqqhp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqspnqqqq"
        "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqsp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
        "qqqqqqqqqqqqqqqnp5qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqnpkqqqqqqqqqqqqqqq"
        "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqz599y53s3ujmcfjp5xrdap68qxymkqphwsexhmhr8wdz5usdz"
        "kzrse33chw6dlp3jhuhge9ley7j2ayx36kawe7kmgg8sv5ugdyusdcqzn8z9x"
    ),
    "payment metadata": (
        "lnbc10m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdp9wpshjmt9de6zqmt"
        "9w3skgct5vysxjmnnd9jx2mq8q8a04uqsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9"
        "q2gqqqqqqsgq7hf8he7ecf7n4ffphs6awl9t6676rrclv9ckg3d3ncn7fct63p6s365duk5wrk202cfy3aj5xnnp"
        "5gs3vrdvruverwwq7yzhkf5a3xqpd05wjc"
    ),
    "a high-S signature": (
        "lnbc1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqq"
        "qsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd5kgetjypeh2ursdae8g6twvus8g6rfwvs"
        "8qun0dfjkxaq9qrsgq357wnc5r2ueh7ck6q93dj32dlqnls087fxdwk8qakdyafkq3yap2r09nt4ndd0unm3z9u5"
        "t48y6ucv4r5sg7lk98c77ctvjczkspk5qprc90gx"
    ),
}

# The same in an older text, when a field `s` was not required and most had none.
OLDER_EXAMPLES = {
    "a donation of any amount": (
        "lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd"
        "5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaq8rkx3yf5tcsyz3d73gafnh3cax9rn449d9p5uxz9ezh"
        "hypd0elx87sjle52x86fux2ypatgddc6k63n7erqz25le42c4u4ecky03ylcqca784w"
    ),
    "a cup of coffee within a minute": (
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7"
        "enxv4jsxqzpuaztrnwngzn3kdzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw"
        "97j25emudupq63nyw24cg27h2rspfj9srp"
    ),
    "a cup of nonsense": (
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9"
        "wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvya"
        "kky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny"
    ),
    "a hashed description": (
        "lnbc20m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdh"
        "dzgynm4zwqd5d7xmw5fk98klysy043l2ahrqscc6gd6ql3jrc5yzme8v4ntcewwz5cnw92tz0pc8qcuufvq7khhr"
        "8wpald05e92xw006sq94mg8v2ndf4sefvf9sygkshp5zfem29trqq2yxxz7"
    ),
    "testnet and a fallback address": (
        "lntb20m1pvjluezhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzq"
        "fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqfpp3x9et2e20v6pu37c5d9vax37wxq72un98kmzzhznpurw9sgl"
        "2v0nklu2g4d0keph5t7tj9tcqd8rexnd07ux4uv2cjvcqwaxgj7v4uwn5wmypjd5n69z2xm3xgksg28nwht7f6zs"
        "pwp3f9t"
    ),
    "extra routing info": (
        "lnbc20m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdh"
        "dzgynm4zwqd5d7xmw5fk98klysy043l2ahrqsfpp3qjmp7lwpagxun9pygexvgpjdc4jdj85fr9yq20q82gphp2n"
        "flc7jtzrcazrra7wwgzxqc8u7754cdlpfrmccae92qgzqvzq2ps8pqqqqqqpqqqqq9qqqvpeuqafqxu92d8lr6fv"
        "g0r5gv0heeeqgcrqlnm6jhphu9y00rrhy4grqszsvpcgpy9qqqqqqgqqqqq7qqzqj9n4evl6mr5aj9f58zp6fyjz"
        "up6ywn3x6sk8akg5v4tgn2q8g4fhx05wf6juaxu9760yp46454gpg5mtzgerlzezqcqvjnhjh8z3g2qqdhhwkj"
    ),
    "a P2SH address": (
        "lnbc20m1pvjluezhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzq"
        "fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqfppj3a24vwu6r8ejrss3axul8rxldph2q7z9kmrgvr7xlaqm47a"
        "pw3d48zm203kzcq357a4ls9al2ea73r8jcceyjtya6fu5wzzpe50zrge6ulk4nvjcpxlekvmxl6qcs9j3tz0469g"
        "q5g658y"
    ),
    "a P2WPKH address": (
        "lnbc20m1pvjluezhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzq"
        "fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqfppqw508d6qejxtdg4y5r3zarvary0c5xw7kepvrhrm9s57hejg"
        "0p662ur5j5cr03890fa7k2pypgttmh4897d3raaq85a293e9jpuqwl0rnfuwzam7yr8e690nd2ypcq9hlkdwdvyc"
        "qa0qza8"
    ),
    "a P2WSH address": (
        "lnbc20m1pvjluezhp58yjmdan79s6qqdhdzgynm4zwqd5d7xmw5fk98klysy043l2ahrqspp5qqqsyqcyq5rqwzq"
        "fqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqfp4qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpy"
        "sxf3q28j0v3rwgy9pvjnd48ee2pl8xrpxysd5g44td63g6xcjcu003j3qe8878hluqlvl3km8rm92f5stamd3jw7"
        "63n3hck0ct7p8wwj463cql26ava"
    ),
    "pico-bitcoin within a week": (
        "lnbc9678785340p1pwmna7lpp5gc3xfm08u9qy06djf8dfflhugl6p7lgza6dsjxq454gxhj9t7a0sd8dgfkx7cm"
        "twd68yetpd5s9xar0wfjn5gpc8qhrsdfq24f5ggrxdaezqsnvda3kkum5wfjkzmfqf3jkgem9wgsyuctwdus9xgr"
        "cyqcjcgpzgfskx6eqf9hzqnteypzxz7fzypfhg6trddjhygrcyqezcgpzfysywmm5ypxxjemgw3hxjmn8yptk7un"
        "td9hxwg3q2d6xjcmtv4ezq7pqxgsxzmnyyqcjqmt0wfjjq6t5v4khxxqyjw5qcqp2rzjq0gxwkzc8w6323m55m4j"
        "yxcjwmy7stt9hwkwe2qxmy8zpsgg7jcuwz87fcqqeuqqqyqqqqlgqqqqn3qq9qn07ytgrxxzad9hc4xt3mawjjt8"
        "znfv8xzscs7007v9gh9j569lencxa8xeujzkxs0uamak9aln6ez02uunw6rd2ht2sqe4hz8thcdagpleym0j"
    ),
    "coffee beans and feature 99": (
        "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyet"
        "pdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqpqsq67gye"
        "39hfg3zd8rgc80k32tvy9xk2xunwm5lzexnvpx6fd77en8qaq424dxgt56cag2dpt359k3ssyhetktkpqh24jqnj"
        "yw6uqd08sgptq44qu"
    ),
    "fields which must be ignored": (
        "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyet"
        "pdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q5sqqqqqqqqqqqqqqqpqsq2qrqq"
        "qfppnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqppnqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
        "qqqpp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqhpnqqqqqqqqqqqqqqqqqqqqqqqqqq"
        "qqqqqqqqqqqqqqqqqqqqqqqqqhp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqspnqqqq"
        "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqsp4qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"
        "qqqqqqqqqqqqqqqnp5qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqnpkqqqqqqqqqqqqqqq"
        "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq2jxxfsnucm4jf4zwtznpaxphce606fvhvje5x7d4gw7n73994"
        "hgs7nteqvenq8a4ml8aqtchv5d9pf7l558889hp4yyrqv6a7zpq9fgpskqhza"
    ),
}

# "Examples of Invalid Invoices" that give themselves away.
INVALID_EXAMPLES = {
    "the checksum is invalid": (
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9"
        "wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvya"
        "kky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrnt"
    ),
    "no 1": (
        "pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9wlrswe78q4"
        "eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvyakky2zr4cus"
        "d45tftc9c5fh0nnqpnl2jfll544esqchsrny"
    ),
    "mixed case": (
        "LNBC2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpquwpc4curk03c9"
        "wlrswe78q4eyqc7d8d0xqzpuyk0sg5g70me25alkluzd2x62aysf2pyy8edtjeevuv4p2d5p76r4zkmneet7uvya"
        "kky2zr4cusd45tftc9c5fh0nnqpnl2jfll544esqchsrny"
    ),
    "the string is too short": (
        "lnbc1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmmwwd"
        "5kgetjypeh2ursdae8g6na6hlh"
    ),
    "an invalid multiplier": (
        "lnbc2500x1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7"
        "enxv4jsxqzpusp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgqrrzc4cvfue4zp3h"
        "ggxp47ag7xnrlr8vgcmkjxk3j5jqethnumgkpqp23z9jclu3v0a7e0aruz366e9wqdykw6dxhdzcjjhldxq0w6wg"
        "qcnu43j"
    ),
    "an invalid multiplier (older text)": (
        "lnbc2500x1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7"
        "enxv4jsxqzpujr6jxr9gq9pv6g46y7d20jfkegkg4gljz2ea2a3m9lmvvr95tq2s0kvu70u3axgelz3kyvtp2yww"
        "t0y8hkx2869zq5dll9nelr83zzqqpgl2zg"
    ),
    "an invalid sub-millisatoshi precision": (
        "lnbc2500000001p1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxat"
        "syp3k7enxv4jsxqzpusp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgq0lzc236j9"
        "6a95uv0m3umg28gclm5lqxtqqwk32uuk4k6673k6n5kfvx3d2h8s295fad45fdhmusm8sjudfhlf6dcsxmfvkeyw"
        "mjdkxcp99202x"
    ),
    "an invalid sub-millisatoshi precision (older text)": (
        "lnbc2500000001p1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxat"
        "syp3k7enxv4jsxqzpu7hqtk93pkf7sw55rdv4k9z2vj050rxdr6za9ekfs3nlt5lr89jqpdmxsmlj9urqumg0h9w"
        "zpqecw7th56tdms40p2ny9q4ddvjsedzcplva53s"
    ),
}

# The others among them: a wallet refuses them, since it checks signatures and features.
UNPAYABLE_EXAMPLES = {
    "unknown feature 100": (
        "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyet"
        "pdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q4psqqqqqqqqqqqqqqqqsgqtqyx"
        "5vggfcsll4wu246hz02kp85x4katwsk9639we5n5yngc3yhqkm35jnjw4len8vrnqnf5ejh0mzj9n3vz2px97eve"
        "ktfm2l6wqccp3y7372"
    ),
    "unknown feature 100 (older text)": (
        "lnbc25m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5vdhkven9v5sxyet"
        "pdeessp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9q4psqqqqqqqqqqqqqqqpqsqq40w"
        "a3khl49yue3zsgm26jrepqr2eghqlx86rttutve3ugd05em86nsefzh4pfurpd9ek9w2vp95zxqnfe2u7ckudyah"
        "sa52q66tgzcp6t2dyk"
    ),
    "the signature is not recoverable": (
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7"
        "enxv4jsxqzpusp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgqwgt7mcn5yqw3yx0"
        "w94pswkpq6j9uh6xfqqqtsk4tnarugeektd4hg5975x9am52rz4qskukxdmjemg92vvqz8nvmsye63r5ykel43pg"
        "z7zq0g2"
    ),
    "the signature is not recoverable (older text)": (
        "lnbc2500u1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7"
        "enxv4jsxqzpuaxtrnwngzn3kdzw5hydlzf03qdgm2hdq27cqv3agm2awhz5se903vruatfhq77w3ls4evs3ch9zw"
        "97j25emudupq63nyw24cg27h2rspk28uwq"
    ),
    "the required s field is missing": (
        "lnbc20m1pvjluezpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqhp58yjmdan79s6qqdh"
        "dzgynm4zwqd5d7xmw5fk98klysy043l2ahrqs9qrsgq7ea976txfraylvgzuxs8kgcw23ezlrszfnh8r6qtfpr6c"
        "xga50aj6txm9rxrydzd06dfeawfk6swupvz4erwnyutnjq7x39ymw6j38gp49qdkj"
    ),
    "a high-S signature and an n field": (
        "lnbc25m1p70xwfzpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdpl2pkx2ctnv5sxxmm"
        "wwd5kgetjypeh2ursdae8g6twvus8g6rfwvs8qun0dfjkxaqnp4q0n326hr8v9zprg8gsvezcch06gfaqqhde2aj"
        "730yg0durunfhv66sp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygs9qrsgqsp5zyg3zyg3"
        "zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygsp5cfzp9ugllvk03rltd6hvndxj26ux6gcxc5azyxk060"
        "rj9tzghct5zvjlps76gx8wpq5yuu79688k8gnm2c0al6v608s96l0xzrrlqqwnzxmu"
    ),
}

TIME = 1496314658
HASH = "0001020304050607080900010203040506070809000102030405060708090102"


def at(seconds: int) -> datetime:
    """The moment so many seconds after 1970 began."""
    return datetime.fromtimestamp(seconds, UTC)


# What most examples say, and where each says something else.
MOST_SAY: dict[str, Any] = {
    "network": "bitcoin",
    "amount_msat": 2_000_000_000,
    "created_at": at(TIME),
    "expires_at": at(TIME + 3600),
    "payment_hash": HASH,
    "description": None,
}
DONATION = {"amount_msat": None, "description": "Please consider supporting this project"}
BEANS = {"amount_msat": 2_500_000_000, "description": "coffee beans"}
COFFEE = {
    "amount_msat": 250_000_000,
    "expires_at": at(TIME + 60),
    "description": "1 cup coffee",
}
EXAMPLE_SAYS: dict[str, dict[str, Any]] = {
    "a donation of any amount": DONATION,
    "a cup of coffee within a minute": COFFEE,
    "a cup of nonsense": COFFEE | {"description": "ナンセンス 1杯"},
    "testnet and a fallback address": {"network": "testnet"},
    "pico-bitcoin within a week": {
        "amount_msat": 967_878_534,
        "created_at": at(1572468703),
        "expires_at": at(1572468703 + 604800),
        "payment_hash": "462264ede7e14047e9b249da94fefc47f41f7d02ee9b091815a5506bc8abf75f",
        "description": (
            "Blockstream Store: 88.85 USD for Blockstream Ledger Nano S x 1, "
            '"Back In My Day" Sticker x 2, "I Got Lightning Working" Sticker x 2 and 1 more items'
        ),
    },
    "coffee beans and feature 99": BEANS,
    "all upper case": BEANS,
    "fields which must be ignored": BEANS,
    "payment metadata": {
        "amount_msat": 1_000_000_000,
        "description": "payment metadata inside",
    },
    "a high-S signature": DONATION,
}


@pytest.mark.parametrize(
    ("name", "bolt11"),
    [
        *(pytest.param(name, bolt11, id=name) for name, bolt11 in EXAMPLES.items()),
        *(pytest.param(name, text, id=f"{name} (older)") for name, text in OLDER_EXAMPLES.items()),
    ],
)
def test_example_of_bolt11_is_decoded(name: str, bolt11: str) -> None:
    says = attrs.asdict(Invoice.parse(bolt11))

    assert says.pop("bolt11") == bolt11
    assert says == MOST_SAY | EXAMPLE_SAYS.get(name, {})


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("the checksum is invalid", "its checksum is wrong"),
        ("no 1", "it has no '1'"),
        ("mixed case", "it mixes upper and lower case"),
        ("the string is too short", "it is too short"),
        ("an invalid multiplier", "an optional multiplier m, u, n or p"),
        ("an invalid multiplier (older text)", "an optional multiplier m, u, n or p"),
        ("an invalid sub-millisatoshi precision", "not a whole number of millisatoshis"),
        (
            "an invalid sub-millisatoshi precision (older text)",
            "not a whole number of millisatoshis",
        ),
    ],
)
def test_invalid_example_of_bolt11_is_refused(name: str, why: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Invoice.parse(INVALID_EXAMPLES[name])

    assert why in caught.value.problem


def test_every_invalid_example_of_bolt11_is_refused() -> None:
    assert len(INVALID_EXAMPLES) == 8
    for bolt11 in INVALID_EXAMPLES.values():
        assert parsed(bolt11) is None


@pytest.mark.parametrize("name", UNPAYABLE_EXAMPLES)
def test_signature_and_features_are_not_checked(name: str) -> None:
    """The docstring says so: wallets check them."""
    assert Invoice.parse(UNPAYABLE_EXAMPLES[name]).payment_hash == HASH
    assert "signature is not" in (Invoice.parse.__doc__ or "")


@pytest.mark.parametrize(
    "text",
    [
        "A12UEL5L",
        "a12uel5l",
        "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
        "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
        "11qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqc8247j",
        "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
        "?1ezyfcl",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
        "\x201nwldj5",
        "\x7f1axkwrx",
        "\x801eym55h",
        "an84characterslonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1569pvx",
        "pzry9x0s0muk",
        "1pzry9x0s0muk",
        "x1b4n0q5v",
        "li1dgmt3",
        "de1lg7wt\xff",
        "A1G7SGD8",
        "10a06t8",
        "1qzzfhee",
    ],
)
def test_bech32_text_that_is_no_invoice_is_refused(text: str) -> None:
    """Valid and invalid strings of BIP 173: a right checksum does not make an invoice."""
    assert parsed(text) is None


# --- the encoder of this file ---------------------------------------------------------------------

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
# The coefficients of BIP 173's generator over GF(32), below x^6.
GENERATOR = (29, 22, 20, 21, 29, 18)


def product(one: int, other: int) -> int:
    """Return the product in GF(32) with the modulus x^5 + x^3 + 1."""
    total = 0
    for place in range(5):
        total ^= (one << place) * (other >> place & 1)
    for place in (8, 7, 6, 5):
        total ^= (0b101001 << (place - 5)) * (total >> place & 1)
    return total


PRODUCTS = [[product(top, coefficient) for coefficient in GENERATOR] for top in range(32)]


def checksum(readable: str, words: list[int]) -> list[int]:
    """Return the six words that make the remainder of a long division 1."""
    codes = readable.encode("latin-1")
    remainder = [0, 0, 0, 0, 0, 1]
    for word in [
        *(code >> 5 for code in codes),
        0,
        *(code & 31 for code in codes),
        *words,
        *[0] * 6,
    ]:
        top, *low = remainder
        remainder = [one ^ other for one, other in zip([*low, word], PRODUCTS[top], strict=True)]
    return [*remainder[:5], remainder[5] ^ 1]


def words_of(data: bytes, padding: str = "0") -> list[int]:
    """Return bytes as words of five bits, with padding at the end."""
    bits = "".join(f"{byte:08b}" for byte in data)
    bits += padding * (-len(bits) % 5)
    return [int(bits[start : start + 5], 2) for start in range(0, len(bits), 5)]


def number(value: int, length: int = 0) -> list[int]:
    """Return a number as words of five bits: at least `length` words."""
    words: list[int] = []
    while value or len(words) < length:
        value, word = divmod(value, 32)
        words.insert(0, word)
    return words


def field(tag: str, words: list[int]) -> list[int]:
    return [ALPHABET.index(tag), *divmod(len(words), 32), *words]


P = field("p", words_of(bytes.fromhex(HASH)))


def written(
    readable: str = "lnbc", fields: list[int] = P, *, time: int = TIME, fill: int = 0
) -> str:
    """Return an invoice whose signature is invalid: 104 times the same word."""
    words = [*number(time, 7), *fields, *[fill] * 104]
    return with_checksum(readable, words)


def with_checksum(readable: str, words: list[int]) -> str:
    letters = [ALPHABET[word] for word in [*words, *checksum(readable, words)]]
    return f"{readable}1{''.join(letters)}"


def parsed(value: Any) -> Invoice | None:
    """Return the invoice, or None if it is refused; any other error ends the test."""
    try:
        return Invoice.parse(value)
    except InvalidArgumentError:
        return None


WHOLE = EXAMPLES["a cup of coffee within a minute"]


def test_encoder_of_this_file_writes_an_example_exactly() -> None:
    readable, _, letters = WHOLE.rpartition("1")

    assert with_checksum(readable, [ALPHABET.index(letter) for letter in letters[:-6]]) == WHOLE


# --- amounts and networks -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("amount", "millisatoshis", "satoshis"),
    [
        ("", None, None),
        ("1", 100_000_000_000, 100_000_000),
        ("1m", 100_000_000, 100_000),
        ("15u", 1_500_000, 1500),
        ("15000n", 1_500_000, 1500),
        ("10p", 1, 1),
        ("9990p", 999, 1),
        ("10000p", 1000, 1),
        ("10010p", 1001, 2),
        ("15005n", 1_500_500, 1501),
        ("15000010p", 1_500_001, 1501),
        ("14999990p", 1_499_999, 1500),
        ("21000000", 2_100_000_000_000_000_000, 2_100_000_000_000_000),
        ("21000000000000000000p", 2_100_000_000_000_000_000, 2_100_000_000_000_000),
    ],
)
def test_amount_is_exact_in_millisatoshis_and_rounded_up_in_satoshis(
    amount: str, millisatoshis: int | None, satoshis: int | None
) -> None:
    """Otherwise, an invoice for 1500.5 sat would pass a limit of 1500."""
    invoice = Invoice.parse(written(f"lnbc{amount}"))

    assert invoice.amount_msat == millisatoshis
    assert invoice.amount_sat == satoshis


@pytest.mark.parametrize(
    ("prefix", "network"),
    [("lnbc", "bitcoin"), ("lntb", "testnet"), ("lntbs", "signet"), ("lnbcrt", "regtest")],
)
@pytest.mark.parametrize("amount", ["", "20m"])
def test_network_is_read_from_the_prefix(prefix: str, network: str, amount: str) -> None:
    assert Invoice.parse(written(prefix + amount)).network == network


# --- times ----------------------------------------------------------------------------------------

LAST_MOMENT = datetime.max.replace(tzinfo=UTC)
LAST_SECOND = LAST_MOMENT.replace(microsecond=0)
SECONDS_LEFT = int((LAST_SECOND - at(TIME)) / timedelta(seconds=1))


@pytest.mark.parametrize(
    ("expiry", "expires_at"),
    [
        ([], at(TIME)),
        ([0], at(TIME)),
        ([1], at(TIME + 1)),
        ([1, 28], at(TIME + 60)),
        ([0, 0, 1, 28], at(TIME + 60)),
        (number(SECONDS_LEFT), LAST_SECOND),
        (number(SECONDS_LEFT + 1), LAST_MOMENT),
        (number(2**64), LAST_MOMENT),
        ([31] * 1023, LAST_MOMENT),
    ],
    ids=["empty", "0", "1", "60", "leading-0s", "last-second", "second-after", "2**64", "longest"],
)
def test_expiry_beyond_the_year_9999_is_its_last_moment(
    expiry: list[int], expires_at: datetime
) -> None:
    invoice = Invoice.parse(written(fields=P + field("x", expiry)))

    assert invoice.created_at == at(TIME)
    assert invoice.expires_at == expires_at


def test_default_expiry_is_an_hour() -> None:
    assert Invoice.parse(written()).expires_at == at(TIME + 3600)


@pytest.mark.parametrize(
    ("time", "created_at"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (32503680000, datetime(3000, 1, 1, tzinfo=UTC)),
        (2**35 - 1, datetime(3058, 10, 26, 3, 46, 7, tzinfo=UTC)),
    ],
)
def test_every_time_of_35_bits_is_read(time: int, created_at: datetime) -> None:
    """Windows converts no time after the year 3000."""
    invoice = Invoice.parse(written(time=time))

    assert invoice.created_at == created_at
    assert invoice.created_at.tzinfo is UTC
    assert invoice.expires_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("now", "expired"),
    [
        (at(TIME), False),
        (at(TIME + 60) - timedelta(microseconds=1), False),
        (at(TIME + 60), True),
        (LAST_MOMENT, True),
        (datetime(2017, 6, 1, 19, 58, 37, tzinfo=timezone(timedelta(hours=9))), False),
        (datetime(2017, 6, 1, 19, 58, 38, tzinfo=timezone(timedelta(hours=9))), True),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), False),
        (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), True),
    ],
)
def test_invoice_is_expired_from_its_expiry_on_in_any_time_zone(
    now: datetime, *, expired: bool
) -> None:
    assert Invoice.parse(WHOLE).is_expired(now) is expired


@pytest.mark.parametrize("expires_at", [at(TIME), LAST_MOMENT])
def test_is_expired_works_at_the_last_moment_in_any_time_zone(
    expires_at: datetime,
) -> None:
    invoice = attrs.evolve(Invoice.parse(WHOLE), expires_at=expires_at)

    for hours in range(-12, 15):
        assert invoice.is_expired(expires_at.replace(tzinfo=timezone(timedelta(hours=hours)))) is (
            hours <= 0
        )


def no_offset(_zone: object, _when: object) -> None: ...


UNFINISHED_ZONE: tzinfo = type("UnfinishedZone", (tzinfo,), {})()
NO_OFFSET: tzinfo = type("NoOffset", (tzinfo,), {"utcoffset": no_offset})()


@pytest.mark.parametrize(
    "now",
    [
        datetime(2026, 11, 1),  # noqa: DTZ001 - the mistake under test
        datetime(2026, 11, 1, tzinfo=UNFINISHED_ZONE),
        datetime(2026, 11, 1, tzinfo=NO_OFFSET),
        datetime(2026, 11, 1, tzinfo=UTC).date(),
        1793491200,
        1793491200.0,
        "2026-11-01T00:00:00Z",
        None,
    ],
    ids=["naive", "unfinished-zone", "no-offset", "date", "int", "float", "str", "None"],
)
def test_is_expired_refuses_anything_but_an_aware_datetime(now: Any) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Invoice.parse(WHOLE).is_expired(now)

    assert str(caught.value) == (
        "now must be a datetime with a time zone; use datetime.now(UTC) or .astimezone(). "
        "Nothing was sent."
    )


# --- tagged fields --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "description"),
    [
        (b"", ""),
        (b"a", "a"),
        ("ナンセンス 1杯".encode(), "ナンセンス 1杯"),
        (b"two\r\nlines\x00", "two\r\nlines\x00"),
        (b"caf\xe9 \xff", "caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}"),
        (b"\xed\xa0\x80", "\N{REPLACEMENT CHARACTER}" * 3),
        (b"d" * 639, "d" * 639),
    ],
    ids=["empty", "short", "wide", "control", "latin-1", "surrogate", "longest"],
)
def test_bytes_of_a_description_that_are_not_utf_8_are_replaced(
    data: bytes, description: str
) -> None:
    invoice = Invoice.parse(written(fields=P + field("d", words_of(data))))

    assert invoice.description == description


def test_padding_of_a_field_is_ignored() -> None:
    """BOLT 11 requires zeros of a writer, and no check of a reader."""
    data = bytes.fromhex(HASH)
    invoice = Invoice.parse(
        written(fields=field("p", words_of(data, "1")) + field("d", words_of(b"tea", "1")))
    )

    assert invoice.payment_hash == HASH
    assert invoice.description == "tea"


def test_first_field_of_a_type_counts() -> None:
    invoice = Invoice.parse(
        written(
            fields=[
                *field("x", [1, 28]),
                *field("p", [31] * 51),
                *field("p", [31] * 53),
                *field("d", words_of(b"first")),
                *P,
                *field("p", [31] * 52),
                *field("x", [1]),
                *field("d", words_of(b"second")),
            ]
        )
    )

    assert invoice.payment_hash == HASH
    assert invoice.expires_at == at(TIME + 60)
    assert invoice.description == "first"


@pytest.mark.parametrize("tag", sorted(set(ALPHABET) - set("pdx")))
def test_other_fields_are_skipped(tag: str) -> None:
    for words in ([], [31] * 52, [31] * 1023):
        invoice = Invoice.parse(written(fields=field(tag, words) + P + field(tag, words)))

        assert attrs.evolve(invoice, bolt11="") == attrs.evolve(Invoice.parse(written()), bolt11="")


# --- refusals -------------------------------------------------------------------------------------

LONGEST = 10_000


def filled(length: int) -> str:
    """Return an invoice of `length` characters, filled with an unknown field."""
    words: list[int] = []
    while spare := length - len(written()) - len(words):
        words += field("q", [31] * (min(spare, 1000) - 3))
    return written(fields=P + words)


REFUSALS: list[tuple[Any, str]] = [
    (None, "it must be a str, not NoneType"),
    (b"lnbc1", "it must be a str, not bytes"),
    (Invoice("", "bitcoin", None, at(0), at(0), ""), "it must be a str, not Invoice"),
    ("paid", "'paid' means that the order was paid from the balance"),
    (filled(LONGEST + 1), "it has 10001 characters, more than 10000"),
    ("lnbc1" + "q" * 2**20, "it has 1048581 characters, more than 10000"),
    (f"{WHOLE}é", "it has a character that is not ASCII"),
    (f"{WHOLE[:-1]}\ud800", "it has a character that is not ASCII"),
    (f"lnbc{'٢٥٠٠'}u1{WHOLE[10:]}", "it has a character that is not ASCII"),
    (WHOLE.replace("k", "\N{KELVIN SIGN}"), "it has a character that is not ASCII"),
    (WHOLE.upper().replace("S", "\N{LATIN SMALL LETTER LONG S}"), "that is not ASCII"),
    (WHOLE.capitalize(), "it mixes upper and lower case"),
    (f"{WHOLE[:-1]}H", "it mixes upper and lower case"),
    ("", "it has no '1' before its data"),
    (" lightning: ", "it has no '1' before its data"),
    ("lnbcqqqqqq", "it has no '1' before its data"),
    (
        with_checksum(f"lnbc{'9' * 80}", [0] * 111),
        "it has more than 83 characters before its last '1'",
    ),
    *(
        (text, "it starts with none of lnbc, lntb, lntbs, lnbcrt, so its network is unknown")
        for text in (
            *(written(name) for name in ("ln", "lnltc", "lnbcm", "lnbcrts20m", "lntbrt", "bc")),
            *(written(name) for name in ("lnurl", "xlnbc", "l", "n", "nl", "20m", "", "ln20m")),
            f"lightning://{WHOLE}",
            f"bitcoin:?lightning={WHOLE}",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "lno1zcss9mk8y3wkklfvevcrszlmu23kfrxh49px20665dqwmn4p72pksese",
        )
    ),
    ("lnbc1b", "its character 6, 'b', is not a bech32 character"),
    ("lnbc20m1qi", "its character 10, 'i', is not a bech32 character"),
    ("lnbc1qo" + "q" * 200, "its character 7, 'o', is not a bech32 character"),
    ("lnbc1q q", "its character 7, ' ', is not a bech32 character"),
    ("lnbc1\x05q", "its character 6, '\\x05', is not a bech32 character"),
    ("lnbc1", "its checksum is wrong: a character was changed, lost or added"),
    (WHOLE[:-1], "its checksum is wrong"),
    (WHOLE.replace("lnbc", "lntb"), "its checksum is wrong"),
    (WHOLE.replace("2500u", "2500n"), "its checksum is wrong"),
    *(
        (written(f"lnbc{amount}"), "its amount is not a number with an optional multiplier")
        for amount in (
            "2500x",
            "2.5m",
            "2,5m",
            "-5m",
            "+5m",
            " 5m",
            "5 m",
            "5mm",
            "5mp",
            "1_0",
            "\n5m",
        )
    ),
    *(
        (written(f"lnbc{amount}"), "its amount is 0 or starts with a 0")
        for amount in ("0", "0m", "00", "05u", "0p", "0000000010p")
    ),
    *(
        (written(f"lnbc{amount}"), "its amount is not a whole number of millisatoshis")
        for amount in ("1p", "9p", "11p", "2500000001p", "21000000000000000001p")
    ),
    *(
        (written(f"lnbc{amount}"), "its amount is more bitcoin than will ever exist")
        for amount in ("21000001", "21000000000000000010p", "9" * 79, "9" * 78 + "m")
    ),
    (with_checksum("lnbc", []), "it is too short to have a time and a signature"),
    (with_checksum("lnbc", [0] * 110), "it is too short to have a time and a signature"),
    (with_checksum("lnbc", [0] * 111), "it has no payment hash"),
    *(
        (written(fields=fields), "a field extends into its signature")
        for fields in ([1], [1, 0], P[:-1], P[:3], [*P, 1], [*P, 1, 0], [*P, 1, 0, 1], [0, 31, 31])
    ),
    *(
        (written(fields=fields), "it has no payment hash")
        for fields in (
            field("s", [0] * 52),
            field("p", []),
            field("p", [0] * 51),
            field("p", [0] * 53) + field("h", [0] * 52),
        )
    ),
]


@pytest.mark.parametrize(
    ("value", "why"),
    REFUSALS,
    ids=[f"{place}-{why[:40]}" for place, (_, why) in enumerate(REFUSALS)],
)
def test_refusal_says_what_is_wrong(value: Any, why: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Invoice.parse(value)

    assert caught.value.problem.startswith("not a Lightning invoice (BOLT 11): ")
    assert why in caught.value.problem
    assert str(caught.value) == f"{caught.value.problem}. Nothing was sent."


def test_invoice_of_10000_characters_is_read() -> None:
    assert Invoice.parse(filled(LONGEST)).payment_hash == HASH
    assert Invoice.parse(f"\n lightning:{filled(LONGEST - 10)}{' ' * 2**20}").payment_hash == HASH


def test_human_readable_part_of_83_characters_is_read() -> None:
    """The refusal is about the amount then, not about the length."""
    with pytest.raises(InvalidArgumentError) as caught:
        Invoice.parse(written(f"lnbc{'9' * 79}"))

    assert "more bitcoin" in caught.value.problem


@pytest.mark.parametrize("value", [0, 1.5, True, [WHOLE], {WHOLE}, bytearray(b"ln"), object(), str])
def test_value_that_is_no_str_is_refused(value: object) -> None:
    assert parsed(value) is None


@pytest.mark.parametrize(
    "secret", ["0123456789abcdef" * 4, "sk_live_0123456789abcdef", "Sk1Live0123456789"]
)
def test_refusal_does_not_repeat_a_secret_passed_by_mistake(secret: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Invoice.parse(secret)

    assert secret not in f"{caught.value!r} {caught.value.args}"
    assert secret[:6] not in str(caught.value)


def test_invoice_with_one_wrong_character_is_refused() -> None:
    for place, right in enumerate(WHOLE):
        for wrong in string.printable:
            if wrong != right:
                assert parsed(WHOLE[:place] + wrong + WHOLE[place + 1 :]) is None


def test_invoice_cut_anywhere_is_refused() -> None:
    for place in range(len(WHOLE)):
        assert parsed(WHOLE[:place]) is None
        assert parsed(WHOLE[place + 1 :]) is None


@pytest.mark.parametrize("more", [1, 2])
def test_insertion_that_the_bech32_checksum_misses_is_refused(more: int) -> None:
    """BIP 173, Limitations: inserting `q` before a final `p` leaves the checksum right."""
    ends_with_p = next(text for time in range(999) if (text := written(time=time)).endswith("p"))
    changed = f"{ends_with_p[:-1]}{'q' * more}p"
    readable, _, letters = changed.rpartition("1")

    assert changed == with_checksum(readable, [ALPHABET.index(letter) for letter in letters[:-6]])
    with pytest.raises(InvalidArgumentError) as caught:
        Invoice.parse(changed)
    assert "a field extends into its signature" in caught.value.problem


# --- random texts ---------------------------------------------------------------------------------

WORDS = st.integers(0, 31)
MULTIPLIERS = {"": 1, "m": 10**3, "u": 10**6, "n": 10**9, "p": 10**12}
PREFIXES: dict[str, Network] = {
    "lnbc": "bitcoin",
    "lntb": "testnet",
    "lntbs": "signet",
    "lnbcrt": "regtest",
}
ANY_TEXT = st.one_of(
    st.text(),
    st.text(f"{ALPHABET}{ALPHABET.upper()}1lnbc \ud800٢"),
    st.builds(
        "{}{}1{}".format,
        st.sampled_from([*PREFIXES, "LIGHTNING:LNBC", "LNTB", " lnbc20m", "lnbc1"]),
        st.text("0123456789munp.٢"),
        st.text(ALPHABET),
    ),
)


@given(ANY_TEXT)
def test_random_text_is_refused_with_a_printable_message(text: str) -> None:
    assert parsed(text) is None
    with pytest.raises(Sms4SatsError) as caught:
        Invoice.parse(text)
    assert len(text) < 8 or text not in str(caught.value)
    assert str(caught.value).isprintable()


@given(
    readable=st.one_of(
        st.text(st.characters(max_codepoint=126), max_size=90),
        st.builds(
            "{}{}".format,
            st.sampled_from(sorted(PREFIXES)),
            st.from_regex("[1-9][0-9]*[munp]?", fullmatch=True),
        ),
    ),
    words=st.lists(WORDS, max_size=300),
)
def test_random_data_with_a_right_checksum_is_read_or_refused(
    readable: str, words: list[int]
) -> None:
    parsed(with_checksum(readable, words))


@given(words=st.lists(WORDS, max_size=200), time=st.integers(0, 2**35 - 1), fill=WORDS)
def test_random_fields_after_a_payment_hash_are_read_or_refused(
    words: list[int], time: int, fill: int
) -> None:
    invoice = parsed(written("lnbc", P + words, time=time, fill=fill))

    if invoice is not None:
        assert invoice.payment_hash == HASH
        assert invoice.created_at == at(time)
        assert invoice.created_at <= invoice.expires_at


@given(
    prefix=st.sampled_from(sorted(PREFIXES)),
    digits=st.one_of(st.just(""), st.integers(1, 10**24).map(str)),
    multiplier=st.sampled_from(sorted(MULTIPLIERS)),
    time=st.integers(0, 2**35 - 1),
    fields=st.lists(
        st.tuples(
            st.sampled_from([*ALPHABET, "p", "p", "x", "x", "d"]),
            st.one_of(st.lists(WORDS, max_size=60), st.lists(WORDS, min_size=52, max_size=52)),
        ),
        max_size=6,
    ),
)
def test_random_invoice_is_read_as_written(
    prefix: str, digits: str, multiplier: str, time: int, fields: list[tuple[str, list[int]]]
) -> None:
    """The check uses exact fractions, and states the rule of the first field again."""
    amount = f"{digits}{multiplier}" if digits else ""
    bitcoin = Fraction(int(digits), MULTIPLIERS[multiplier]) if digits else None
    hashes = [words for tag, words in fields if tag == "p" and len(words) == 52]
    expiries = [words for tag, words in fields if tag == "x"]
    invoice = parsed(
        written(prefix + amount, [word for one in fields for word in field(*one)], time=time)
    )

    payable = bitcoin is None or (bitcoin <= 21_000_000 and (bitcoin * 10**11).denominator == 1)
    assert (invoice is not None) == bool(payable and hashes)
    if invoice is not None:
        assert invoice.network == PREFIXES[prefix]
        assert invoice.amount_msat == (None if bitcoin is None else bitcoin * 10**11)
        assert invoice.amount_sat == (None if bitcoin is None else math.ceil(bitcoin * 10**8))
        assert words_of(bytes.fromhex(invoice.payment_hash))[:51] == hashes[0][:51]
        seconds = (
            int("".join(f"{word:05b}" for word in expiries[0]) or "0", 2) if expiries else 3600
        )
        if seconds <= 10**11:
            assert invoice.expires_at == at(time) + timedelta(seconds=seconds)
        else:
            assert invoice.expires_at.year >= 5138
        assert (invoice.description is None) == all(tag != "d" for tag, _ in fields)


@given(
    network=st.sampled_from(sorted(set(PREFIXES.values()))),
    amount_sat=st.none() | st.integers(1, 2_100_000_000_000_000),
    payment_hash=st.binary(min_size=32, max_size=32),
    payment_secret=st.binary(min_size=32, max_size=32),
    description=st.text(max_size=150),
    timestamp=st.integers(0, 2**35 - 1),
    expiry=st.integers(0, 2**35),
    signature=st.binary(min_size=65, max_size=65),
    upper=st.booleans(),
)
def test_invoice_of_the_simulator_is_read_as_written(
    *,
    network: Network,
    amount_sat: int | None,
    payment_hash: bytes,
    payment_secret: bytes,
    description: str,
    timestamp: int,
    expiry: int,
    signature: bytes,
    upper: bool,
) -> None:
    bolt11 = make_invoice(
        amount_sat=amount_sat,
        payment_hash=payment_hash,
        payment_secret=payment_secret,
        description=description,
        timestamp=timestamp,
        expiry=expiry,
        network=network,
        signature=signature,
    )
    invoice = Invoice.parse(bolt11.upper() if upper else bolt11)

    assert invoice.network == network
    assert invoice.amount_sat == amount_sat
    assert invoice.amount_msat == (None if amount_sat is None else amount_sat * 1000)
    assert invoice.payment_hash == payment_hash.hex()
    assert invoice.description == description
    assert invoice.created_at == at(timestamp)
    assert invoice.expires_at - invoice.created_at == timedelta(seconds=expiry)
    assert invoice == Invoice.parse(bolt11)


@given(bolt11=st.sampled_from(sorted(EXAMPLES.values())), data=st.data())
def test_example_with_one_random_wrong_character_is_refused(
    bolt11: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(bolt11) - 1))
    wrong = data.draw(st.characters(exclude_categories=()))

    if wrong != bolt11[place]:
        assert parsed(bolt11[:place] + wrong + bolt11[place + 1 :]) is None


# --- the value ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "lightning:{}",
        "LIGHTNING:{}",
        "LightNing:{}",
        " {} ",
        "\r\n\t{}\n",
        "\N{NO-BREAK SPACE}{}\N{IDEOGRAPHIC SPACE}",
        " lightning: {}\n",
    ],
)
@pytest.mark.parametrize("bolt11", [WHOLE, WHOLE.upper()], ids=["lower", "upper"])
def test_scheme_and_blanks_around_an_invoice_are_ignored(text: str, bolt11: str) -> None:
    invoice = Invoice.parse(text.format(bolt11))

    assert invoice.bolt11 == bolt11
    assert invoice == Invoice.parse(bolt11)


def test_upper_and_lower_case_are_equal() -> None:
    lower, upper = Invoice.parse(WHOLE), Invoice.parse(WHOLE.upper())

    assert lower == upper
    assert len({lower, upper}) == 1
    assert (lower.bolt11, upper.bolt11) == (WHOLE, WHOLE.upper())


def test_invoices_that_differ_in_any_field_or_the_signature_are_not_equal() -> None:
    invoice = Invoice.parse(written())

    assert invoice != Invoice.parse(written(fill=1))
    for name in attrs.fields_dict(Invoice):
        change: dict[str, Any] = {name: "another"}
        assert attrs.evolve(invoice, **change) != invoice


def test_positional_fields_keep_their_order() -> None:
    assert [field.name for field in attrs.fields(Invoice)] == [
        *("bolt11", "network", "amount_msat", "created_at", "expires_at", "payment_hash"),
        "description",
    ]
    bare = Invoice(WHOLE, "bitcoin", 250_000_000, at(TIME), at(TIME + 60), HASH)
    assert bare.description is None
    assert attrs.evolve(bare, description="1 cup coffee") == Invoice.parse(WHOLE)


def test_invoice_is_immutable() -> None:
    invoice = Invoice.parse(WHOLE)

    for name in (*attrs.fields_dict(Invoice), "amount_sat", "another"):
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(invoice, name, None)
    assert not hasattr(invoice, "__dict__")
    assert invoice == Invoice.parse(WHOLE)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_invoice_can_be_pickled_and_copied(protocol: int) -> None:
    invoice = Invoice.parse(WHOLE)
    again = pickle.loads(pickle.dumps(invoice, protocol))  # noqa: S301 - the bytes are ours

    assert again == copy.copy(invoice) == copy.deepcopy(invoice) == invoice
    assert again.bolt11 == WHOLE
    assert hash(again) == hash(invoice)


def test_repr_masks_the_invoice_and_its_payment_hash() -> None:
    """Whether the payment hash equals the order ID is unknown."""
    assert repr(Invoice.parse(WHOLE)) == (
        "Invoice(bolt11=lnbc…a3rh, network='bitcoin', amount_msat=250000000, "
        "created_at=datetime.datetime(2017, 6, 1, 10, 57, 38, tzinfo=datetime.timezone.utc), "
        "expires_at=datetime.datetime(2017, 6, 1, 10, 58, 38, tzinfo=datetime.timezone.utc), "
        "payment_hash=0001…0102, description='1 cup coffee')"
    )


def test_parse_of_a_subclass_returns_the_subclass() -> None:
    class Bill(Invoice):
        pass

    assert type(Bill.parse(WHOLE)) is Bill
