"""placeholder: being written"""
import base64
from jinja2 import Template
from .env import env, ROOT
class S:
    def restart(self, unit, processes=1):
        if processes==1: return f"supervisorctl restart {unit}"
        return " && ".join(f"supervisorctl restart {unit}:{unit}_{i}" for i in range(processes))
    def install(self, units):
        return "mkdir -p supervisor/conf.d; " + "; ".join(f"echo {base64.b64encode(v).decode()} | base64 -d > supervisor/conf.d/{k}" for k,v in units.items())+"; supervisorctl reread; supervisorctl update"
def manager(): return S()
def units_for(host, deploy_to, home, user):
    return {f"{n}.conf": Template((ROOT/f"templates/supervisor/{n}.conf.j2").read_text()).render(host=host,env=env,deploy_to=deploy_to,home=home,user=user).encode() for n in env.units_of(host)}
