import time

from example_fixtures import TOY


def test_x(scripts, tmp_path):
    for i in range(2):
        t = time.time()
        r = scripts.run(
            *TOY,
            cwd=tmp_path,
            prelude=f"""
import time,sys,atexit,threading
T={t}
print('prelude', time.time()-T)
b=set(sys.modules)
atexit.register(lambda: print('atexit', time.time()-T, sorted(set(sys.modules)-b)))
import os
import pointdiffusion.fitting as f
g=f._run
def run(*a):
    print('run',time.time()-T); g(*a); print('ran', time.time()-T)
f._run=run
""",
        )
        print(r.out.replace("\\n", "\n"))
        print("end", time.time() - t)
    assert 0
