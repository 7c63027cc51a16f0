package guard
import ("testing";"time";"os";"fmt";"path/filepath")
func TestSplit(t *testing.T){
 group,_:=newGroup(""); g,err:=Start(os.Getenv("GB"),group); if err!=nil{t.Fatal(err)}
 c,_:=hammer(t,"sleep 1000"); if err:=g.Watch("c",c.Spec());err!=nil{t.Fatal(err)}
 snap:=func()map[string]string{m:=map[string]string{};fs,_:=filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat",g.PID()));for _,f:=range fs{d,_:=os.ReadFile(f);m[f]=string(d)};return m}
 time.Sleep(2*time.Second); a:=snap(); time.Sleep(10*time.Second); b:=snap()
 for k:=range b{var n1,w1,c1,n2,w2,c2 int; fmt.Sscan(a[k],&n1,&w1,&c1);fmt.Sscan(b[k],&n2,&w2,&c2); t.Log(k,(n2-n1)/1000,"us",c2-c1,"slices")}
 g.proc.end()
}
